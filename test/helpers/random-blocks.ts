/** A model in GGUF files with random blocks of the types that are only read, and in F32 with the same values. */

import { resolveConfig, type ModelConfig } from "../../src/config/index.ts";
import { decodeBlocks, DTYPES, dtypeOfBlocks, Rng, toF16Bits, type BlockType } from "../../src/core/index.ts";
import type { GgufContent } from "../../src/formats/index.ts";
import { drawnGguf } from "./drawn-gguf.ts";
import { drawWeights } from "./drawn-weights.ts";

export type ReadType = "Q4_1" | "Q5_1" | "Q5_K" | "IQ4_NL" | "MXFP4";
export const READ_TYPES: readonly ReadType[] = ["Q4_1", "Q5_1", "Q5_K", "IQ4_NL", "MXFP4"];

/**
 * Where the f16 factors of a block stand, and what they are for values of deviation 1 around 0 when every other bit is
 * random: codes of 4 bits have mean 7.5 and deviation 4.6, of 5 bits 15.5 and 9.2, scales of 6 bits mean 31.5.
 */
const FACTORS: Readonly<Record<Exclude<ReadType, "MXFP4">, readonly (readonly [at: number, factor: number])[]>> = {
  Q4_1: [
    [0, 1 / 4.6],
    [2, -7.5 / 4.6],
  ],
  Q5_1: [
    [0, 1 / 9.2],
    [2, -15.5 / 9.2],
  ],
  Q5_K: [
    [0, 1 / 31.5 / 9.2],
    [2, 15.5 / 31.5 / 9.2],
  ],
  IQ4_NL: [[0, 1 / 70]],
};

/** Blocks whose values are around 0 and of about this deviation, some blocks three times as wide as others. */
function randomBlocks(rng: Rng, type: ReadType, elements: number, deviation: number): Uint8Array {
  const { blockElements, blockBytes } = DTYPES[dtypeOfBlocks(type)];
  const bytes = Uint8Array.from({ length: (elements / blockElements) * blockBytes }, () => rng.nextUint32());
  for (let block = 0; block < bytes.length; block += blockBytes) {
    const width = deviation * (0.5 + rng.uniform());
    // Its values are e2m1 doubled, of deviation 6.
    if (type === "MXFP4") bytes[block] = 128 + Math.round(Math.log2(width / 6));
    else for (const [at, factor] of FACTORS[type]) putHalf(bytes, block + at, factor * width);
  }
  return bytes;
}

function putHalf(bytes: Uint8Array, at: number, value: number): void {
  new DataView(bytes.buffer).setUint16(at, toF16Bits(value), true);
}

type GgufTensor = GgufContent["tensors"][number];

function decoded(type: BlockType, blocks: Uint8Array, elements: number): Uint8Array {
  const values = new Float32Array(elements);
  decodeBlocks(type, blocks, values);
  return new Uint8Array(values.buffer);
}

/** Rows of whole blocks everywhere, those of the split kv projection among them. */
const BLOCKS_OF_32 = {
  ...{ vocab_size: 259, dim: 64, inter_dim: 96, moe_inter_dim: 32, n_mtp_layers: 0 },
  ...{ q_lora_rank: 32, kv_lora_rank: 32, qk_nope_head_dim: 32, v_head_dim: 16 },
};
const BLOCKS_OF_256 = {
  ...{ vocab_size: 259, dim: 256, inter_dim: 256, moe_inter_dim: 256, n_mtp_layers: 0 },
  ...{ q_lora_rank: 256, kv_lora_rank: 256, qk_nope_head_dim: 256, v_head_dim: 128 },
  ...{ n_routed_experts: 2, n_activated_experts: 1, n_expert_groups: 1, n_limited_groups: 1 },
};

export interface RandomBlockFiles {
  readonly model: ModelConfig;
  /** All matrices but routers in the type. */
  readonly stored: GgufContent;
  /** The same values in F32. */
  readonly plain: GgufContent;
}

/** Norms and routers are drawn, all other matrices random blocks. */
export function randomBlockFiles(type: ReadType): RandomBlockFiles {
  const { model } = resolveConfig("tiny", type === "Q5_K" ? BLOCKS_OF_256 : BLOCKS_OF_32);
  const drawn = drawnGguf(model, drawWeights(model, 7), { splitKvB: true, type: "F32" });
  const rng = new Rng(11, type);
  const stored: GgufTensor[] = [];
  const plain: GgufTensor[] = [];
  for (const tensor of drawn.tensors) {
    const { name, shape } = tensor;
    if (shape.length === 1 || name.endsWith("ffn_gate_inp.weight")) {
      stored.push(tensor);
      plain.push(tensor);
      continue;
    }
    const elements = shape.reduce((product, n) => product * n, 1);
    const blocks = randomBlocks(rng, type, elements, 1.4 / Math.sqrt(shape.at(-1)!));
    const values = decoded(type, blocks, elements);
    stored.push({ name, shape, dtype: type, chunks: () => [blocks] });
    plain.push({ name, shape, dtype: "F32", chunks: () => [values] });
  }
  return { model, stored: { ...drawn, tensors: stored }, plain: { ...drawn, tensors: plain } };
}
