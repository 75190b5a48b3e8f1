import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { ConfigError, DisposedError, FormatError } from "../core/errors.ts";
import { type DatasetOptions, type DocumentEncoder, openDataset, type TokenDataset } from "./dataset.ts";
import type { TokenShard } from "./shards.ts";
import type { Source } from "./source.ts";
import { createSplit } from "./split.ts";

const cacheDir = fs.mkdtempSync(path.join(os.tmpdir(), "fathom-dataset-"));
beforeEach(() => fs.rmSync(cacheDir, { recursive: true, force: true }));
afterAll(() => fs.rmSync(cacheDir, { recursive: true, force: true }));

/** Every byte is a token, 2 + its value. */
const byteEncoder: DocumentEncoder = {
  id: "bytes",
  vocabSize: 258,
  bosId: 0,
  eosId: 1,
  tokenBytes: Array.from({ length: 258 }, (_, id) => (id < 2 ? 0 : 1)),
  encode: (text) => Array.from(Buffer.from(text), (byte) => byte + 2),
};

function sourceOf(texts: readonly string[], id = "a"): Source & { reads: number } {
  const source = {
    name: "test",
    id,
    sizeBytes: 0,
    reads: 0,
    async *documents() {
      source.reads++;
      yield* texts;
    },
  };
  return source;
}

const TEXTS = Array.from({ length: 100 }, (_, i) => `document ${i} ${"文字 ".repeat(i % 7)}`);

function open(over: Partial<DatasetOptions> = {}): Promise<TokenDataset> {
  return openDataset({ source: sourceOf(TEXTS), encoder: byteEncoder, cacheDir, validationFraction: 0.05, ...over });
}

/** The texts of a shard, read back by its index. */
function textsOf(shard: TokenShard): string[] {
  return Array.from({ length: shard.documents }, (_, number) => {
    const { start, textBytes } = shard.document(number);
    const ids = shard.read(start, textBytes + 2);
    expect([ids[0], ids.at(-1)]).toEqual([byteEncoder.bosId, byteEncoder.eosId]);
    return Buffer.from(ids.slice(1, -1).map((id) => id - 2)).toString();
  });
}

test("each split holds its documents in order, as bos, text, eos", async () => {
  using dataset = await open();
  const isHeldOut = createSplit(0.05);
  expect(textsOf(dataset.train)).toEqual(TEXTS.filter((_, i) => !isHeldOut(i)));
  expect(textsOf(dataset.validation)).toEqual(TEXTS.filter((_, i) => isHeldOut(i)));
  const bytes = TEXTS.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  expect(dataset.train.textBytes + dataset.validation.textBytes).toBe(bytes);
  expect(dataset.train.length + dataset.validation.length).toBe(bytes + 2 * TEXTS.length);
});

test("document starts are found in any range", async () => {
  using dataset = await open();
  const { train } = dataset;
  const starts = Array.from({ length: train.documents }, (_, number) => train.document(number).start);
  for (let from = 0; from < train.length; from += 37) {
    const expected = starts.filter((at) => at >= from && at < from + 50);
    expect(train.documentStarts(from, from + 50)).toEqual(expected);
  }
});

test("a vocabulary over 65536 is kept in four bytes per token", async () => {
  const tokenBytes = new Uint8Array(100_000).fill(1, 2);
  const encode: DocumentEncoder["encode"] = (text) => Array.from(Buffer.from(text), (byte) => byte + 70_000);
  using dataset = await open({ encoder: { ...byteEncoder, id: "wide", vocabSize: 100_000, tokenBytes, encode } });
  expect([...dataset.train.read(0, 4)]).toEqual([0, 70_100, 70_111, 70_099]);
});

test("texts are handed to encodeMany in batches of about a million characters", async () => {
  const batches: number[] = [];
  const encodeMany: DocumentEncoder["encodeMany"] = (texts) => {
    batches.push(texts.length);
    return texts.map((text) => byteEncoder.encode(text));
  };
  const texts = Array.from({ length: 10 }, () => "x".repeat(300_000));
  using dataset = await open({ source: sourceOf(texts), encoder: { ...byteEncoder, encodeMany } });
  expect(batches).toEqual([4, 4, 2]);
  expect(dataset.train.documents).toBe(9);
});

test("the second opening reads no text; another source, tokenizer or fraction makes another data set", async () => {
  const source = sourceOf(TEXTS);
  const id = async (over: Partial<DatasetOptions>): Promise<string> => {
    using dataset = await open({ source, ...over });
    return dataset.id;
  };
  const first = await id({});
  expect(await id({})).toBe(first);
  expect(source.reads).toBe(1);
  expect(await id({ source: sourceOf(TEXTS, "b") })).toBe(first);
  expect(await id({ source: sourceOf(TEXTS.slice(1), "c") })).not.toBe(first);
  expect(await id({ encoder: { ...byteEncoder, id: "other" } })).not.toBe(first);
  await id({ validationFraction: 0.1 });
  expect(fs.readdirSync(path.join(cacheDir, "tokens"))).toHaveLength(5);
});

test("several openings at the same time give the same data and leave one folder", async () => {
  const datasets = await Promise.all([open(), open(), open()]);
  expect(new Set(datasets.map((dataset) => textsOf(dataset.train).join())).size).toBe(1);
  for (const dataset of datasets) dataset[Symbol.dispose]();
  expect(fs.readdirSync(path.join(cacheDir, "tokens"))).toHaveLength(1);
});

test("one document can not be split, and a failure leaves nothing behind", async () => {
  const error = await open({ source: sourceOf(["alone"]) }).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(ConfigError);
  expect((error as Error).message).toMatchInlineSnapshot(
    `"data: must hold at least 2 documents, one to train on and one held out, got 1; give more files, or text longer than 16 KiB in one"`,
  );
  expect(fs.readdirSync(path.join(cacheDir, "tokens"))).toEqual([]);
});

test("an encoder whose tokens do not spell the text is a bug that is told", async () => {
  const encode: DocumentEncoder["encode"] = (text) => byteEncoder.encode(text.toLowerCase().slice(1));
  await expect(open({ encoder: { ...byteEncoder, encode } })).rejects.toThrow("the tokens of a text of 11 bytes");
});

async function damage(name: string, change: (bytes: Buffer) => Buffer): Promise<unknown> {
  fs.rmSync(cacheDir, { recursive: true, force: true });
  (await open())[Symbol.dispose]();
  const [key] = fs.readdirSync(path.join(cacheDir, "tokens"));
  const file = path.join(cacheDir, "tokens", key!, name);
  fs.writeFileSync(file, change(fs.readFileSync(file)));
  return open().catch((thrown: unknown) => thrown);
}

test.each(["train.tokens", "train.index", "validation.tokens", "validation.index"])(
  "a truncated, foreign, newer or exchanged %s is a FormatError",
  async (name) => {
    const changes: ((bytes: Buffer) => Buffer)[] = [
      (bytes) => bytes.subarray(0, -1),
      (bytes) => Buffer.concat([bytes, Buffer.of(0)]),
      (bytes) => bytes.subarray(0, 30),
      () => Buffer.from("some other file of text, longer than the header of a token file is"),
      (bytes) => Buffer.concat([bytes.subarray(0, 8), Buffer.of(99), bytes.subarray(9)]),
      (bytes) => Buffer.concat([bytes.subarray(0, 32), Buffer.alloc(32, 7), bytes.subarray(64)]),
    ];
    for (const change of changes) {
      const error = await damage(name, change);
      expect(error).toBeInstanceOf(FormatError);
      expect((error as Error).message).toContain("delete its folder and run again");
    }
  },
);

test("reading from a closed data set is a DisposedError", async () => {
  const dataset = await open();
  dataset[Symbol.dispose]();
  expect(() => dataset.train.read(0, 1)).toThrow(DisposedError);
});
