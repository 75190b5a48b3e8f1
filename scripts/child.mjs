/** Child processes of the scripts: run to the end with output passed on and kept, or in the foreground of the terminal. */
import { spawn } from "node:child_process";
import { constants } from "node:os";

/**
 * @typedef {{ code: number, output: string }} Ended `code` is 128 + the signal's number for a child that a signal ended
 */

/**
 * Runs a command without standard input and collects what it writes.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd: string, env?: NodeJS.ProcessEnv, echo?: boolean, shell?: boolean }} options `echo` also passes the output on to standard error as it comes
 * @returns {Promise<Ended>}
 */
export function runCollected(command, args, { cwd, env = process.env, echo = false, shell = false }) {
  const child = spawn(command, args, { cwd, env, shell, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => {
      output += text;
      if (echo) process.stderr.write(text);
    });
  }
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code: exitCode(code, signal), output }));
  });
}

/**
 * Runs a command in the foreground and waits for its end, whatever signal arrives meanwhile. SIGTERM is passed on; SIGINT
 * is passed on only without a terminal, because a terminal sends Ctrl-C to the child by itself.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {string} cwd
 * @returns {Promise<number>} the exit code, 128 + the signal's number for a child that a signal ended
 */
export function runForeground(command, args, cwd) {
  const child = spawn(command, args, { cwd, stdio: "inherit" });
  const atTerminal = [process.stdin, process.stdout, process.stderr].some((stream) => stream.isTTY);
  const onInterrupt = () => {
    if (!atTerminal) child.kill("SIGINT");
  };
  const onTerminate = () => {
    child.kill("SIGTERM");
  };
  process.on("SIGINT", onInterrupt).on("SIGTERM", onTerminate);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      process.off("SIGINT", onInterrupt).off("SIGTERM", onTerminate);
      resolve(exitCode(code, signal));
    });
  });
}

/**
 * @param {number | null} code
 * @param {NodeJS.Signals | null} signal
 */
function exitCode(code, signal) {
  return signal === null ? (code ?? 1) : 128 + constants.signals[signal];
}
