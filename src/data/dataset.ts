/** A corpus as token files: made once per source, tokenizer and split, then opened from the cache. */

import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { ConfigError, invariant } from "../core/errors.ts";
import { digest } from "./digest.ts";
import { createWhole } from "./disk.ts";
import type { ReportProgress } from "./progress.ts";
import { SHARD_VERSION, ShardWriter, TokenShard } from "./shards.ts";
import type { Source } from "./source.ts";
import { createSplit } from "./split.ts";

/** What this room needs of a tokenizer. */
export interface DocumentEncoder {
  /** Changes with the vocabulary, the merges or the rules. */
  readonly id: string;
  readonly vocabSize: number;
  readonly bosId: number;
  readonly eosId: number;
  /** UTF-8 bytes of every token by its id, 0 for special tokens. Those of a text's tokens sum to its own. */
  readonly tokenBytes: ArrayLike<number>;
  /** The ids of plain text: nothing in it is taken for a special token, none is added. */
  encode(text: string): ArrayLike<number>;
  /** The same for many texts at once, when that is faster. */
  encodeMany?(texts: readonly string[]): readonly ArrayLike<number>[];
}

export interface TokenDataset {
  /** Hexadecimal hash of the documents' text and the tokenizer: equal ids mean equal tokens. */
  readonly id: string;
  readonly train: TokenShard;
  readonly validation: TokenShard;
  [Symbol.dispose](): void;
}

export interface DatasetOptions {
  readonly source: Source;
  readonly encoder: DocumentEncoder;
  /** Folder that holds everything Fathom keeps between runs. */
  readonly cacheDir: string;
  /** Share of documents held out, in (0, 0.5]. */
  readonly validationFraction: number;
  readonly onProgress?: ReportProgress;
}

/** Characters that are tokenised in one call. */
const ENCODE_BATCH_CHARS = 1 << 20;

/**
 * The token files of a source, tokenised now if the cache has none for this source, tokenizer and split.
 *
 * @throws ConfigError when the source has no text or only one document, FormatError when the cached files are damaged.
 */
export async function openDataset(options: DatasetOptions): Promise<TokenDataset> {
  const folder = path.join(options.cacheDir, "tokens", cacheKey(options));
  if (!fs.existsSync(folder)) {
    await createWhole(folder, async (unfinished) => {
      await writeDataset(unfinished, options);
      return unfinished;
    });
  }
  const train = new TokenShard(path.join(folder, "train"));
  try {
    const validation = new TokenShard(path.join(folder, "validation"));
    const dispose = (): void => {
      train[Symbol.dispose]();
      validation[Symbol.dispose]();
    };
    return { id: train.hash, train, validation, [Symbol.dispose]: dispose };
  } catch (error) {
    train[Symbol.dispose]();
    throw error;
  }
}

function cacheKey({ source, encoder, validationFraction }: DatasetOptions): string {
  const parts = [SHARD_VERSION, source.id, encoder.id, encoder.bosId, encoder.eosId, validationFraction];
  return digest(parts).slice(0, 32);
}

async function writeDataset(folder: string, options: DatasetOptions): Promise<void> {
  const { source, encoder, validationFraction, onProgress } = options;
  const isHeldOut = createSplit(validationFraction);
  using train = new ShardWriter(path.join(folder, "train"), encoder.vocabSize);
  using validation = new ShardWriter(path.join(folder, "validation"), encoder.vocabSize);
  const hash = createHash("sha256").update(JSON.stringify([encoder.id, encoder.bosId, encoder.eosId]));
  let documents = 0;
  let doneBytes = 0;
  for await (const texts of inBatches(source.documents())) {
    const encoded = encoder.encodeMany?.(texts) ?? texts.map((text) => encoder.encode(text));
    for (const [i, text] of texts.entries()) {
      const ids = encoded[i]!;
      const textBytes = checkedBytes(text, ids, encoder);
      (isHeldOut(documents++) ? validation : train).add(ids, encoder.bosId, encoder.eosId, textBytes);
      hash.update(`${textBytes}\n`).update(text);
      doneBytes += textBytes;
    }
    onProgress?.({ phase: "tokenize", subject: source.name, doneBytes, totalBytes: source.sizeBytes });
  }
  if (validation.tokens === 0) {
    const cure = "give more files, or text longer than 16 KiB in one";
    throw new ConfigError("data", "must hold at least 2 documents, one to train on and one held out", documents, cure);
  }
  const whole = hash.digest();
  train.finish(whole);
  validation.finish(whole);
}

/** The text's UTF-8 bytes, by which losses are measured, and which its tokens must spell. */
function checkedBytes(text: string, ids: ArrayLike<number>, encoder: DocumentEncoder): number {
  const textBytes = Buffer.byteLength(text);
  let spelt = 0;
  for (let i = 0; i < ids.length; i++) spelt += encoder.tokenBytes[ids[i]!]!;
  invariant(spelt === textBytes, `the tokens of a text of ${textBytes} bytes spell as many, not ${spelt}`);
  return textBytes;
}

async function* inBatches(documents: AsyncIterable<string>): AsyncGenerator<string[]> {
  let batch: string[] = [];
  let chars = 0;
  for await (const text of documents) {
    batch.push(text);
    chars += text.length;
    if (chars < ENCODE_BATCH_CHARS) continue;
    yield batch;
    [batch, chars] = [[], 0];
  }
  if (batch.length > 0) yield batch;
}
