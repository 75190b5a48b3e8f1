/** Models of random weights and of a given size, written to the disk to see how they load. */

import { randomFillSync } from "node:crypto";
import { join } from "node:path";
import { blueprint, checkpointNames, ggufNames, type Blueprint } from "../blueprint/index.ts";
import { hfConfigText, resolveConfig, type ModelConfig } from "../config/index.ts";
import { ggufKeys, ggufVocabulary } from "../convert/node.ts";
import { toF16Bits } from "../core/index.ts";
import { ggufBytes, tensorBytes, writeGguf, writeSafetensors, writeWhole } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import { saveTokenizer } from "../tokenizer/node.ts";

export interface RandomModel {
  readonly format: "gguf" | "safetensors";
  /** Of the matrices. */
  readonly type: string;
  /** What is opened. */
  readonly path: string;
  /** The file with the weights. */
  readonly file: string;
}

/** Every token needs each of its weights, and the head is the embedding, so that the first one reads the whole file. */
const SIZES = { dim: 2048, interDim: 8192, nHeads: 16, nKvHeads: 16, headDim: 128 };
const LAYER_WEIGHTS = 4 * SIZES.dim ** 2 + 3 * SIZES.dim * SIZES.interDim;
/** Bytes of 32 weights. */
const BLOCK_BYTES = { gguf: 34, safetensors: 64 } as const;
/** Standard deviation at which activations keep their size. */
const DEVIATION = 1 / Math.sqrt(SIZES.dim);
const PIECE_BLOCKS = 2 ** 18;

/** A model of type `llama` of about `bytes`, in one format. @param folder - an empty one for its files. */
export async function writeRandomModel(
  folder: string,
  format: RandomModel["format"],
  bytes: number,
  tokenizer: Tokenizer,
): Promise<RandomModel> {
  const model = modelOfSize((bytes * 32) / BLOCK_BYTES[format], tokenizer.vocabSize);
  const plan = blueprint(model);
  return format === "gguf" ? writeGgufModel(folder, plan, tokenizer) : writeFolderModel(folder, plan, tokenizer);
}

/** Bytes of the smallest model in a format, which has one layer. */
export function leastModelBytes(format: RandomModel["format"], vocabSize: number): number {
  return ((LAYER_WEIGHTS + vocabSize * SIZES.dim) * BLOCK_BYTES[format]) / 32;
}

function modelOfSize(weights: number, vocabSize: number): ModelConfig {
  const nLayers = Math.max(1, Math.round((weights - vocabSize * SIZES.dim) / LAYER_WEIGHTS));
  const own = { ...SIZES, nLayers, nDenseLayers: nLayers, vocabSize, tieEmbeddings: true, dtype: "bf16" };
  return resolveConfig({ preset: "deepseek-llm-7b", model: own }).model;
}

async function writeGgufModel(folder: string, plan: Blueprint, tokenizer: Tokenizer): Promise<RandomModel> {
  const file = join(folder, "model.gguf");
  const source = {
    ids: { bos: tokenizer.bosId, eos: tokenizer.eosId },
    hfFiles: [],
    load: () => Promise.resolve(tokenizer),
    template: undefined,
  };
  const vocabulary = await ggufVocabulary(source, plan.model.vocabSize);
  const blocks = randomQ80();
  const tensors = ggufNames(plan, { splitKvB: true }).map(({ name, shape }) => {
    const dtype = shape.length === 1 ? ("F32" as const) : ("Q8_0" as const);
    const bytes = ggufBytes(dtype, shape)!;
    return { name, shape, dtype, chunks: () => (shape.length === 1 ? [onesF32(bytes)] : repeated(blocks, bytes)) };
  });
  await writeGguf(nodeFiles, file, { metadata: new Map([...ggufKeys(plan.model).metadata, ...vocabulary]), tensors });
  return { format: "gguf", type: "Q8_0", path: file, file };
}

async function writeFolderModel(folder: string, plan: Blueprint, tokenizer: Tokenizer): Promise<RandomModel> {
  const file = join(folder, "model.safetensors");
  const values = randomBf16();
  const tensors = checkpointNames(plan).map(({ name, shape }) => {
    const bytes = tensorBytes("BF16", shape)!;
    const chunks = (): Iterable<Uint8Array> => (shape.length === 1 ? [onesBf16(bytes)] : repeated(values, bytes));
    return { name, shape, dtype: "BF16" as const, chunks };
  });
  await writeSafetensors(nodeFiles, file, tensors);
  const config = hfConfigText(plan.model, { bos: tokenizer.bosId, eos: tokenizer.eosId });
  await writeWhole(nodeFiles, join(folder, "config.json"), [new TextEncoder().encode(config)]);
  await saveTokenizer(tokenizer, folder);
  return { format: "safetensors", type: "BF16", path: folder, file };
}

function* repeated(piece: Uint8Array, bytes: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes; at += piece.length) yield piece.subarray(0, Math.min(piece.length, bytes - at));
}

/** A scale in f16 and 32 signed bytes; uniform ones deviate by 2^8 / √12. */
function randomQ80(): Uint8Array {
  const blocks = randomFillSync(new Uint8Array(PIECE_BLOCKS * BLOCK_BYTES.gguf));
  const scale = toF16Bits((DEVIATION * Math.sqrt(12)) / 256);
  for (let at = 0; at < blocks.length; at += BLOCK_BYTES.gguf) [blocks[at], blocks[at + 1]] = [scale & 255, scale >> 8];
  return blocks;
}

/** Any sign and fraction, and an exponent of about the deviation. */
function randomBf16(): Uint8Array {
  const bits = randomFillSync(new Uint16Array((PIECE_BLOCKS * BLOCK_BYTES.safetensors) / 2));
  const exponent = (127 + Math.floor(Math.log2(DEVIATION))) << 7;
  for (let i = 0; i < bits.length; i++) bits[i] = (bits[i]! & 0x807f) | exponent;
  return new Uint8Array(bits.buffer);
}

function onesF32(bytes: number): Uint8Array {
  return new Uint8Array(new Float32Array(bytes / 4).fill(1).buffer);
}

function onesBf16(bytes: number): Uint8Array {
  return new Uint8Array(new Uint16Array(bytes / 2).fill(0x3f80).buffer);
}
