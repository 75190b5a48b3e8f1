/**
 * The outputs shown in `docs/guide`: in every ```console block each line `$ fathom …` is run and what follows it is what
 * the command printed, with its exit code where that is not 0. `npm run guide` checks that the pages are true, `npm run guide -- --write` renews them.
 * The fence of a block is longer than any that a command prints.
 */

import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "docs", "guide");

/** Runs one shell line of a page and gives what it printed, both streams in order. */
type Run = (line: string) => string;

/** The page with the output of every command renewed. */
export function renewPage(page: string, run: Run): string {
  return page.replaceAll(/^(`{3,})console\n(.*?)^\1$/gms, (_, _fence: string, block: string) => {
    const commands = block.split("\n").filter((line) => line.startsWith("$ "));
    const body = commands.map((line) => `${line}\n${run(line.slice(2))}`).join("");
    const fence = fenceAround(body);
    return `${fence}console\n${body}${fence}`;
  });
}

function fenceAround(body: string): string {
  const longest = Math.max(2, ...[...body.matchAll(/^`+/gm)].map(([ticks]) => ticks.length));
  return "`".repeat(longest + 1);
}

/** Runs a line in `sh` with `fathom` on its path; a page's commands share one folder. */
export function shell(cwd: string): Run {
  const main = join(root, "dist", "cli", "main.js");
  return (line) => {
    const fathom = `fathom() { "${process.execPath}" "${main}" "$@"; }`;
    const npm = `npm() { command npm --silent --prefix "${root}" "$@"; }`;
    const script = `${fathom}\n${npm}\n{ ${line}\n} 2>&1`;
    const { stdout, status, error } = spawnSync("sh", ["-c", script], { cwd, encoding: "utf8", maxBuffer: 1 << 24 });
    if (error !== undefined) throw error;
    const text = stdout === "" || stdout.endsWith("\n") ? stdout : `${stdout}\n`;
    return status === 0 ? text : `${text}(exit code ${status})\n`;
  };
}

/** Names of the pages that are not true any more; with `write` they are made so. */
export function checkGuide(write: boolean): string[] {
  const stale: string[] = [];
  for (const name of readdirSync(folder).filter((file) => file.endsWith(".md"))) {
    const cwd = mkdtempSync(join(tmpdir(), "fathom-guide-"));
    try {
      const page = readFileSync(join(folder, name), "utf8");
      const renewed = renewPage(page, shell(cwd));
      if (renewed === page) continue;
      stale.push(name);
      if (write) writeFileSync(join(folder, name), renewed);
    } finally {
      rmSync(cwd, { recursive: true });
    }
  }
  return stale;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const write = process.argv.includes("--write");
  const stale = checkGuide(write);
  for (const name of stale)
    console.log(`docs/guide/${name}: ${write ? "renewed" : "shows other output than the commands print"}`);
  if (stale.length > 0 && !write) {
    console.log("run npm run guide -- --write");
    process.exitCode = 1;
  }
}
