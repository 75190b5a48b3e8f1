import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { IoError } from "../core/errors.ts";
import type { Source } from "../data/node.ts";
import { prepareText } from "./node.ts";

const folder = mkdtempSync(join(tmpdir(), "fathom-text-"));
afterAll(() => rmSync(folder, { recursive: true }));

function sourceOf(texts: readonly string[]): Source {
  const documents = async function* (): AsyncGenerator<string> {
    yield* texts;
  };
  return { name: "test", id: texts.join("\n"), sizeBytes: texts.join("").length, documents };
}

const OPTIONS = { vocabSize: 259, valFraction: 0.5 };

test("a document that spells special tokens is plain text, byte for byte", async () => {
  const spelt = "An end is written <｜end▁of▁sentence｜> there.";
  const source = sourceOf([spelt, "to be or not to be"]);
  const { dataset, tokenBytes, tokenizer } = await prepareText({ ...OPTIONS, source, cacheDir: join(folder, "plain") });
  using tokens = dataset;
  const ids = Array.from(tokens.train.read(0, tokens.train.length));
  expect(ids.filter((id) => id === tokenizer.eosId)).toHaveLength(1);
  expect(tokenizer.decode(ids, { skipSpecial: true })).toBe(spelt);
  expect(ids.reduce((sum, id) => sum + tokenBytes[id]!, 0)).toBe(Buffer.byteLength(spelt));
});

test("a cache that cannot be written is an IoError", async () => {
  const cacheDir = join(folder, "file");
  writeFileSync(cacheDir, "");
  await expect(prepareText({ ...OPTIONS, source: sourceOf(["one", "two two two two"]), cacheDir })).rejects.toThrow(
    IoError,
  );
});
