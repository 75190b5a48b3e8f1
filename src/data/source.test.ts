import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { ConfigError, FormatError } from "../core/errors.ts";
import { collect } from "../../test/helpers/collect.ts";
import { openFiles, openTexts } from "./source.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "fathom-source-"));
beforeEach(() => {
  fs.rmSync(folder, { recursive: true });
  fs.mkdirSync(path.join(folder, "sub"), { recursive: true });
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

function write(files: Record<string, string | Uint8Array>): void {
  for (const [name, content] of Object.entries(files)) fs.writeFileSync(path.join(folder, name), content);
}

async function documents(...patterns: string[]): Promise<string[]> {
  const source = await openFiles(patterns, folder);
  return collect(source.documents());
}

test("a text file is a document, in the order of paths, each file once", async () => {
  write({ "b.txt": "bee", "a.txt": "ay", "sub/c.txt": "sea", "note.md": "no" });
  expect(await documents("**/*.txt")).toEqual(["ay", "bee", "sea"]);
  expect(await documents("sub", "**/*.txt", "b.txt")).toEqual(["ay", "bee", "sea"]);
  expect(await documents(path.join(folder, "*.txt"))).toEqual(["ay", "bee"]);
});

test("a file whose name holds glob characters can be named", async () => {
  write({ "my (1) [x].txt": "text" });
  expect(await documents("my (1) [x].txt")).toEqual(["text"]);
});

test("every line of a .jsonl file is a document; blank lines and blank texts are none", async () => {
  write({ "d.jsonl": '{"text":"one\\ntwo"}\n\n{"text":"  "}\r\n{"id":3,"text":"three"}' });
  expect(await documents("d.jsonl")).toEqual(["one\ntwo", "three"]);
});

test("a file that is the whole corpus becomes about twenty documents cut at line ends", async () => {
  const line = `${"words and ".repeat(10)}\n`;
  write({ "book.txt": line.repeat(10_000) });
  const pieces = await documents("book.txt");
  expect(pieces.join("")).toBe(line.repeat(10_000));
  expect(pieces.length).toBeGreaterThanOrEqual(20);
  expect(pieces.length).toBeLessThan(23);
  expect(pieces.every((piece) => piece.endsWith("\n"))).toBe(true);
});

test("the id follows path, size and modification time, and opening again does not change it", async () => {
  write({ "a.txt": "one" });
  const id = async (): Promise<string> => (await openFiles(["*.txt"], folder)).id;
  const before = await id();
  expect(await id()).toBe(before);
  fs.utimesSync(path.join(folder, "a.txt"), 1, 1);
  const touched = await id();
  write({ "b.txt": "two" });
  expect(new Set([before, touched, await id()]).size).toBe(3);
});

test("no file, no text, no JSON and no text field are errors that name the place", async () => {
  write({ "empty.txt": "", "blank.txt": " \n", "bad.jsonl": '{"text":"a"}\n{"text":', "field.jsonl": '{"body":"a"}' });
  const failure = async (pattern: string): Promise<Error> => {
    const error = await documents(pattern).catch((thrown: unknown) => thrown as Error);
    return error as Error;
  };
  const none = await failure("*.csv");
  expect(none).toBeInstanceOf(ConfigError);
  expect(none.message).toContain('data: must match at least one file, got "*.csv"; check the path, which starts at');
  expect((await failure("{empty,blank}.txt")).message).toMatchInlineSnapshot(
    `"data: must hold some text (every document is blank), got "{empty,blank}.txt"; give other files"`,
  );
  const bad = await failure("bad.jsonl");
  expect(bad).toBeInstanceOf(FormatError);
  expect(bad.message).toContain("bad.jsonl:2: every line must be JSON");
  const field = await failure("field.jsonl");
  expect(field).toBeInstanceOf(FormatError);
  expect(field.message).toContain("field.jsonl:1: every line must be an object with a string text");
});

test("whole documents come in pieces: a file however large, and every line of a .jsonl file", async () => {
  const large = "a line of the file\n".repeat(500_000);
  write({ "a.txt": large, "b.jsonl": '{"text":"one\\ntwo"}\n\n{"text":"three"}', "c.txt": "" });
  const { sizeBytes, documents: streams } = await openTexts(["*"], folder);
  const found: string[][] = [];
  for await (const pieces of streams()) found.push(await collect(pieces));
  expect(sizeBytes).toBe(large.length + 37);
  expect(found.map((pieces) => pieces.length)).toEqual([2, 1, 1, 0]);
  expect(found[0]!.join("") === large).toBe(true);
  expect(found[0]![0]!.endsWith("\n")).toBe(true);
  expect(found.slice(1)).toEqual([["one\ntwo"], ["three"], []]);
});
