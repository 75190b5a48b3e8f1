import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "tokenizers";
import { expect, test } from "vitest";
import { trainTokenizer } from "./node.ts";

/** Lines of this repository's own source: words, code, numbers and other scripts. */
async function sourceLines(): Promise<string[]> {
  const names = ["pieces.ts", "pieces.test.ts", "tokenizer-json.ts", "tokenizer.ts", "bpe.ts", "files.ts", "native.ts"];
  const texts = await Promise.all(names.map((name) => readFile(new URL(name, import.meta.url), "utf8")));
  return texts.join("").match(/.*\n/g)!;
}

function mergesOf(tokenizerJson: string): string[] {
  const { model } = JSON.parse(tokenizerJson) as { model: { merges: (string | [string, string])[] } };
  return model.merges.map((merge) => (typeof merge === "string" ? merge : merge.join(" ")));
}

test("the merges are those of the Hugging Face trainer, down to pairs that occur twice", async () => {
  const lines = await sourceLines();
  const ours = mergesOf((await trainTokenizer(lines, { vocabSize: 1500 })).toJson());
  const folder = await mkdtemp(join(tmpdir(), "fathom-training-"));
  try {
    const corpus = join(folder, "corpus.txt");
    await writeFile(corpus, lines.join(""));
    const reference = HuggingFaceTokenizer.fromString((await trainTokenizer([], { vocabSize: 259 })).toJson());
    reference.train([corpus]);
    reference.save(join(folder, "tokenizer.json"));
    const theirs = mergesOf(await readFile(join(folder, "tokenizer.json"), "utf8"));
    expect(theirs.slice(0, ours.length)).toEqual(ours);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("the order of the documents does not matter, nor whether they come one by one", async () => {
  const lines = await sourceLines();
  const expected = (await trainTokenizer(lines, { vocabSize: 600 })).toJson();
  async function* stream(): AsyncGenerator<string> {
    yield* lines.toReversed();
  }
  expect((await trainTokenizer(stream(), { vocabSize: 600 })).toJson()).toBe(expected);
});

test("special tokens in the text are not learned", async () => {
  const tokenizer = await trainTokenizer(["<sep>ab<sep>ab<sep>"], { vocabSize: 261, specialTokens: ["<sep>"] });
  expect(mergesOf(tokenizer.toJson())).toEqual(["a b"]);
});

test("a vocabulary without room for the bytes is refused with the smallest legal size", async () => {
  await expect(trainTokenizer(["text"], { vocabSize: 256 })).rejects.toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: vocab_size: must be an integer from 259 (256 bytes and 3 special tokens) to 1048576, got 256; 4096 suits small models, 32768 larger ones]`,
  );
  await expect(trainTokenizer(["text"], { vocabSize: 300.5 })).rejects.toThrow("must be an integer");
});

test("a vocabulary that the text cannot fill is refused with the size that was reached", async () => {
  await expect(trainTokenizer(["abcabc abc"], { vocabSize: 1000 })).rejects.toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: vocab_size: must be at most 261 for this text, got 1000; give more text, or set vocab_size to 261]`,
  );
});

test("special tokens must be distinct and not empty", async () => {
  const options = { vocabSize: 300, specialTokens: ["<a>", "<a>"] };
  await expect(trainTokenizer([], options)).rejects.toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: tokenizer.special_tokens: must be distinct and not empty, got "<a>"]`,
  );
  await expect(trainTokenizer([], { ...options, specialTokens: [""] })).rejects.toThrow("must be distinct");
});
