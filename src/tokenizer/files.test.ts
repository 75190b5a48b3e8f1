import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { FormatError, IoError } from "../core/errors.ts";
import { loadTokenizer, saveTokenizer, trainTokenizer } from "./node.ts";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-tokenizer-"));
});

afterEach(() => rm(folder, { recursive: true }));

test("a saved tokenizer loads from its folder and from its file, and says the same", async () => {
  const tokenizer = await trainTokenizer(["to be or not to be"], { vocabSize: 262 });
  await saveTokenizer(tokenizer, folder);
  expect((await readdir(folder)).toSorted()).toEqual(["tokenizer.json", "tokenizer_config.json"]);
  for (const path of [folder, join(folder, "tokenizer.json")]) {
    const loaded = await loadTokenizer(path);
    expect(loaded.toJson()).toBe(tokenizer.toJson());
    expect(loaded.toConfigJson()).toBe(tokenizer.toConfigJson());
    expect(loaded.encode("not to be")).toEqual(tokenizer.encode("not to be"));
  }
});

test("a missing file and a folder without a tokenizer are named", async () => {
  await expect(loadTokenizer(join(folder, "absent.json"))).rejects.toThrow(IoError);
  await expect(loadTokenizer(folder)).rejects.toThrow(join(folder, "tokenizer.json"));
});

test("a truncated file is a FormatError", async () => {
  const tokenizer = await trainTokenizer([], { vocabSize: 259 });
  await writeFile(join(folder, "tokenizer.json"), tokenizer.toJson().slice(0, 500));
  await expect(loadTokenizer(folder)).rejects.toThrow(FormatError);
});

test("a file that is not UTF-8 is a FormatError", async () => {
  await writeFile(join(folder, "tokenizer.json"), Uint8Array.of(0x22, 0xc3, 0x28, 0x22));
  await expect(loadTokenizer(folder)).rejects.toThrow("tokenizer.json: must be UTF-8 text");
});

test("saving into a folder that does not exist is an IoError", async () => {
  const tokenizer = await trainTokenizer([], { vocabSize: 259 });
  await expect(saveTokenizer(tokenizer, join(folder, "absent"))).rejects.toThrow(IoError);
});
