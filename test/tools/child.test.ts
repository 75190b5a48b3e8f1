import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { runCollected } from "../../scripts/child.mjs";

/** Runs a script in the foreground of a parent process, as `npm start` does; `signal` is sent to the parent when the child is ready. */
async function runUnderParent(child: string, signal: NodeJS.Signals | undefined) {
  const childUrl = new URL("../../scripts/child.mjs", import.meta.url).href;
  const parent = `
    import { runForeground } from ${JSON.stringify(childUrl)};
    process.exitCode = await runForeground(process.execPath, ["-e", ${JSON.stringify(child)}], process.cwd());`;
  const running = spawn(process.execPath, ["--input-type=module", "-e", parent], { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  running.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    if (text.includes("ready") && signal !== undefined) running.kill(signal);
  });
  const [code] = (await once(running, "close")) as [number | null];
  return { code, output };
}

test("the parent returns the code of its child", async () => {
  expect(await runUnderParent("process.exit(7)", undefined)).toEqual({ code: 7, output: "" });
});

test.each(["SIGINT", "SIGTERM"] as const)(
  "%s reaches the child, and the parent waits until it has saved",
  async (signal) => {
    const child = `
    process.on("${signal}", () => setTimeout(() => { console.log("saved"); process.exit(3); }, 50));
    setInterval(() => {}, 1000);
    console.log("ready");`;
    expect(await runUnderParent(child, signal)).toEqual({ code: 3, output: "ready\nsaved\n" });
  },
);

test("a child that a signal ended gives 128 + the signal's number", async () => {
  expect(await runUnderParent("process.kill(process.pid, 'SIGKILL'); setInterval(() => {}, 1000)", undefined)).toEqual({
    code: 137,
    output: "",
  });
});

test("collected output holds both streams, and the child gets no standard input", async () => {
  const script =
    "process.stdin.on('end', () => { console.log('out'); console.error('err'); process.exit(2); }).resume()";
  const { code, output } = await runCollected(process.execPath, ["-e", script], { cwd: process.cwd() });
  expect([code, output.split("\n").toSorted()]).toEqual([2, ["", "err", "out"]]);
});
