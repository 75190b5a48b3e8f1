import { spawnSync } from "node:child_process";
import fc from "fast-check";
import { expect, test } from "vitest";
import { command, expand, quote, script } from "./shell.ts";

function run(text: string, environment: Record<string, string> = {}): string {
  return spawnSync("bash", ["-c", text], { encoding: "utf8", env: { PATH: process.env.PATH!, ...environment } }).stdout;
}

test("bash hands on every quoted word as it was", () => {
  // NUL ends a string for the operating system; lone surrogates have no UTF-8.
  const word = fc.string({ unit: "binary", maxLength: 20 }).filter((text) => !text.includes("\0"));
  const words = fc.sample(word, { numRuns: 200, seed: 1 });
  const printed = run(`printf '%s\\0' ${words.map(quote).join(" ")}`)
    .split("\0")
    .slice(0, -1);
  expect(printed).toEqual(words);
});

test("an expression stays one word whatever it expands to", () => {
  expect(run(`printf '[%s]' ${quote(expand("$NAME"))}`, { NAME: "a b * '" })).toBe("[a b * ']");
});

test("a command over several lines is one command", () => {
  expect(run(command([["printf", "%s,"], ["--a", 1], ["b c"]]))).toBe("--a,1,b c,");
});

test("a default holds unless the caller sets the variable, and is never run", () => {
  const text = script({ about: ["x"], defaults: { NAME: `a"$(echo run)\`}'b` }, body: ['printf %s "$NAME"'] });
  expect(run(text)).toBe(`a"$(echo run)\`}'b`);
  expect(run(text, { NAME: "mine" })).toBe("mine");
});

test("a script without a required variable stops and says what it holds", () => {
  const text = script({ about: ["x"], required: { DATA: "the model's data" }, body: ["echo ran"] });
  const { stderr, stdout, status } = spawnSync("bash", ["-c", text], { encoding: "utf8", env: {} });
  expect({ stdout, status }).toEqual({ stdout: "", status: 2 });
  expect(stderr).toContain("DATA must be set: the model's data");
});

test("a comment cannot break out of its line", () => {
  expect(run(script({ about: ["a\necho escaped"], body: ["echo body"] }))).toBe("body\n");
});
