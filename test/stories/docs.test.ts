/** What the README and the examples promise, tried as they stand. */

import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Workspace, root, writeTexts } from "../helpers/cli.ts";

const README = readFileSync(join(root, "README.md"), "utf8");
const TSX = join(root, "node_modules", "tsx", "dist", "cli.mjs");

const workspace = new Workspace();
beforeAll(() => writeTexts(workspace));
afterAll(() => workspace[Symbol.dispose]());

/** The blocks of one language in the README. */
function blocks(language: string): string[] {
  const all = README.matchAll(/^```(\w*)\n(.*?)^```$/gms);
  return [...all].flatMap(([, name, text]) => (name === language ? [text!] : []));
}

/** The words of a shell line; quotes hold words together. */
function shellWords(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map((match) => match[1] ?? match[2] ?? match[3]!);
}

describe("the README", () => {
  const commands = blocks("sh").flatMap((block) => block.trim().split("\n"));

  test("names only npm scripts that there are", () => {
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: object };
    const named = [...README.matchAll(/(?:^|`)npm (?:run )?([a-z]+)/gm)].map((match) => match[1]!);
    expect(named).toEqual(expect.arrayContaining(["start", "test"]));
    for (const name of named) expect(Object.keys(scripts)).toContain(name);
  });

  test("shows commands that work one after the other", async () => {
    const shown = commands.filter((line) => line.startsWith("npx fathom "));
    expect(shown.map((line) => shellWords(line)[2])).toEqual(["train", "train", "generate"]);
    for (const line of shown) {
      // The smallest model and a few steps in place of nano and hours.
      const args = shellWords(line)
        .slice(2)
        .map((word) => ({ 1000: "3", 2000: "5" })[word] ?? word);
      const small = args.includes("--data") ? ["--preset", "tiny"] : [];
      const { code, stdout, stderr } = await workspace.run(...args, ...small);
      expect(code, `${line}\n${stderr}`).toBe(0);
      expect(stdout.trim()).not.toBe("");
    }
  });

  test("lists exactly the verbs that there are, each with --help", async () => {
    const { stdout } = await workspace.run("--help");
    const verbs = [...stdout.slice(stdout.indexOf("Commands:")).matchAll(/^ {2}([a-z]+) /gm)].map((match) => match[1]!);
    const listed = [...README.matchAll(/^\| (`[^|]+) \|/gm)].flatMap(([, cell]) =>
      [...cell!.matchAll(/`([a-z]+)/g)].map((match) => match[1]!),
    );
    const known = verbs.filter((verb) => verb !== "help");
    expect([...new Set(listed)].toSorted()).toEqual(known.toSorted());
    for (const verb of known) {
      const help = await workspace.run(verb, "--help");
      expect(help.code).toBe(0);
      expect(help.stdout).toContain(`Usage: fathom ${verb}`);
    }
  });

  test("shows TypeScript whose results are as its comments say", async () => {
    const [snippet] = blocks("ts");
    const claims = [...snippet!.matchAll(/^(.+); \/\/ (\S+)$/gm)];
    expect(claims.length).toBeGreaterThan(0);
    const program = claims.reduce(
      (code, [line, value]) => code.replace(line, `console.log(String(${value}));`),
      snippet!,
    );
    const args = ["--input-type=module", "--eval", program];
    const { code, stdout, stderr } = await workspace.spawn(process.execPath, args, { cwd: root }).ended;
    expect(code, stderr).toBe(0);
    expect(stdout.trim().split("\n")).toEqual(claims.map((claim) => claim[2]));
  });

  test("draws the tree as it is", () => {
    const tree = blocks("").find((block) => block.startsWith("src/"));
    const rooms = [...tree!.matchAll(/^ {2}(\w+)\//gm)].map((match) => match[1]!);
    expect(rooms.toSorted()).toEqual(readdirSync(join(root, "src")).toSorted());
    const folders = [...tree!.matchAll(/^(\w+)\//gm)].map((match) => match[1]!);
    for (const folder of folders) expect(readdirSync(root)).toContain(folder);
  });

  test("points at files that there are", () => {
    const paths = [...README.matchAll(/`((?:src|native|bench|test|examples)\/[\w./-]+)`/g)].map((match) => match[1]!);
    expect(paths.length).toBeGreaterThan(5);
    for (const path of paths) expect(existsSync(join(root, path)), path).toBe(true);
  });
});

describe("the example", () => {
  /** Runs an example by the command in its first line. */
  async function runExample(file: string): Promise<string> {
    const command = /`npx tsx (.+?)`/.exec(readFileSync(join(root, "examples", file), "utf8"))![1]!;
    const running = workspace.spawn(process.execPath, [TSX, ...shellWords(command)], { cwd: root });
    const { code, stdout, stderr } = await running.ended;
    expect(code, stderr).toBe(0);
    return stdout;
  }

  test("count.ts counts the parameters of DeepSeek-V3", async () => {
    expect(await runExample("count.ts")).toMatch(/^deepseek-v3: 671026419200 parameters, \d+ activated, \d+ more/);
  });

  test("train-and-generate.ts trains, saves, loads and writes", async () => {
    const lines = (await runExample("train-and-generate.ts")).trimEnd().split("\n");
    const losses = lines.flatMap((line) => /^step \d+: loss ([\d.]+)$/.exec(line)?.[1] ?? []).map(Number);
    expect(losses).toHaveLength(30);
    expect(losses.at(-1)).toBeLessThan(losses[0]! - 0.5);
    expect(lines.filter((line) => /^bits per byte \d+\.\d{3}$/.test(line)).length).toBeGreaterThanOrEqual(4);
    expect(lines.at(-1)).not.toMatch(/^(step|bits per byte)/);
  });

  test("of every file is tried here", () => {
    expect(readdirSync(join(root, "examples")).toSorted()).toEqual(["count.ts", "train-and-generate.ts"]);
  });
});
