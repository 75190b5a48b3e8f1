/** From a source of documents to token files: a tokenizer is trained on its training documents or taken from the cache. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { createSplit } from "../data/index.ts";
import {
  createWhole,
  digest,
  openDataset,
  type DocumentEncoder,
  type Source,
  type TokenDataset,
} from "../data/node.ts";
import type { ReportProgress } from "../data/index.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import { loadTokenizer, saveTokenizer, trainTokenizer } from "../tokenizer/node.ts";

export interface TextOptions {
  readonly source: Source;
  readonly vocabSize: number;
  /** Share of documents held out. */
  readonly valFraction: number;
  /** Folder that holds everything Fathom keeps between runs. */
  readonly cacheDir: string;
  /** Use this tokenizer and train none. */
  readonly tokenizer?: Tokenizer;
  readonly onProgress?: ReportProgress;
}

export interface PreparedText {
  readonly tokenizer: Tokenizer;
  readonly dataset: TokenDataset;
  readonly tokenBytes: Uint32Array;
}

/** Changes when the tokenizer's training does. */
const TOKENIZER_VERSION = 1;

/** Tokenizer and token files of a source, made now or taken from the cache. */
export async function prepareText(options: TextOptions): Promise<PreparedText> {
  const { source, valFraction: validationFraction, cacheDir, onProgress } = options;
  const tokenizer = options.tokenizer ?? (await cachedTokenizer(options));
  const tokenBytes = tokenizer.tokenBytes();
  const encoder = documentEncoder(tokenizer, tokenBytes);
  const progress = onProgress === undefined ? {} : { onProgress };
  const dataset = await openDataset({ source, encoder, cacheDir, validationFraction, ...progress });
  return { tokenizer, dataset, tokenBytes };
}

/** Trained on the documents that are not held out, so that validation text has no say in the vocabulary. */
async function cachedTokenizer(options: TextOptions): Promise<Tokenizer> {
  const { source, vocabSize, valFraction, cacheDir } = options;
  const key = digest([TOKENIZER_VERSION, source.id, vocabSize, valFraction]).slice(0, 32);
  const folder = join(cacheDir, "tokenizers", key);
  if (existsSync(folder)) return loadTokenizer(folder);
  const tokenizer = await trainTokenizer(trainingDocuments(source, valFraction), { vocabSize });
  await createWhole(folder, async (unfinished) => {
    await saveTokenizer(tokenizer, unfinished);
    return unfinished;
  });
  return tokenizer;
}

async function* trainingDocuments(source: Source, valFraction: number): AsyncGenerator<string> {
  const isHeldOut = createSplit(valFraction);
  let number = 0;
  for await (const document of source.documents()) if (!isHeldOut(number++)) yield document;
}

/** A document that spells a special token is text about it, not one. */
const PLAIN = { allowSpecial: false } as const;

function documentEncoder(tokenizer: Tokenizer, tokenBytes: Uint32Array): DocumentEncoder {
  return {
    id: digest([tokenizer.toJson()]),
    vocabSize: tokenizer.vocabSize,
    bosId: tokenizer.bosId,
    eosId: tokenizer.eosId,
    tokenBytes,
    encode: (text) => tokenizer.encode(text, PLAIN),
    encodeMany: (texts) => tokenizer.encodeMany(texts, PLAIN),
  };
}
