import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { FormatError, IoError } from "../core/errors.ts";
import { collect } from "../../test/helpers/collect.ts";
import { readLines, readPieces } from "./text-file.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "fathom-text-"));
afterAll(() => fs.rmSync(folder, { recursive: true }));

function write(name: string, content: string | Uint8Array): string {
  const file = path.join(folder, name);
  fs.writeFileSync(file, content);
  return file;
}

const text = fc.string({ unit: fc.constantFrom("a", " ", "\n", "é", "日", "🜁"), maxLength: 60 });

test("pieces joined are the file, and none is over the limit", async () => {
  await fc.assert(
    fc.asyncProperty(text, fc.integer({ min: 4, max: 40 }), async (content, maxBytes) => {
      const pieces = await collect(readPieces(write("pieces.txt", content), maxBytes));
      expect(pieces.join("")).toBe(content);
      for (const piece of pieces) expect(Buffer.byteLength(piece)).toBeLessThanOrEqual(maxBytes);
    }),
  );
});

test("a piece ends with a line, else with a word, else with a character", async () => {
  const pieces = async (content: string): Promise<string[]> => collect(readPieces(write("cut.txt", content), 8));
  expect(await pieces("ab\ncd ef gh")).toEqual(["ab\n", "cd ef gh"]);
  expect(await pieces("abc def ghi")).toEqual(["abc def ", "ghi"]);
  expect(await pieces("日本語日本語")).toEqual(["日本", "語日", "本語"]);
});

test("lines are those of the file, also across read buffers", async () => {
  const lines = ["a", "b", "c", "x".repeat(3 << 20), "日本", "", "end"];
  const read = await collect(readLines(write("lines.txt", lines.join("\n"))));
  expect(read.map((line) => line.text)).toEqual(lines);
  expect(read.map((line) => line.number)).toEqual(lines.map((_, i) => i + 1));
});

test("a byte order mark is no text", async () => {
  const file = write("bom.txt", "\u{feff}one\ntwo");
  expect(await collect(readPieces(file, 100))).toEqual(["one\ntwo"]);
  expect((await collect(readLines(file)))[0]?.text).toBe("one");
});

test.each([
  ["a NUL byte", Buffer.from("good text\n\0more"), 10],
  ["a byte that is never valid", Buffer.concat([Buffer.from("日本語 "), Buffer.of(0xff), Buffer.from("rest")]), 10],
  ["a character cut short", Buffer.from("日本語").subarray(0, 8), 6],
  ["a surrogate", Buffer.concat([Buffer.from("ab"), Buffer.of(0xed, 0xa0, 0x80), Buffer.from("cd")]), 2],
])("%s is an error with its byte offset", async (_, bytes, offset) => {
  const file = write("binary.txt", bytes);
  for (const read of [readPieces(file, 1 << 20), readLines(file)]) {
    const error = await collect<unknown>(read).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(FormatError);
    expect((error as FormatError).offset).toBe(offset);
  }
});

test("the offset of bad bytes in a later piece counts from the start of the file", async () => {
  const file = write("late.txt", Buffer.concat([Buffer.from("line one\nline two\n"), Buffer.of(0x80, 0x0a)]));
  await expect(collect(readPieces(file, 10))).rejects.toThrow("late.txt at byte 18: must be UTF-8 text");
});

test("a line that could not be held in memory is refused where it begins", async () => {
  const file = write("long.jsonl", Buffer.concat([Buffer.from("{}\n"), Buffer.alloc(65 << 20, "x")]));
  const error = (await collect<unknown>(readLines(file)).catch((thrown: unknown) => thrown)) as Error;
  expect(error).toBeInstanceOf(FormatError);
  expect(error.message.replace(folder, "DIR")).toMatchInlineSnapshot(
    `"DIR/long.jsonl at byte 3: a line must have at most 67108864 bytes, got 68157437; divide its text into several lines, or rename the file to .txt if it is plain text"`,
  );
});

test("a missing file is an IoError", async () => {
  await expect(collect(readPieces(path.join(folder, "none"), 10))).rejects.toThrow(IoError);
});
