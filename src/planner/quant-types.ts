/**
 * The storage types of GGUF tensors: elements and bytes of one block. **Source:** llama.cpp v0.5.0,
 * ggml/src/ggml-common.h (`block_*`).
 */

import { invariant } from "../core/errors.ts";

interface QuantBlock {
  readonly elements: number;
  readonly bytes: number;
}

const block = (elements: number, bytes: number): QuantBlock => ({ elements, bytes });

export const QUANT_BLOCKS = {
  f32: block(1, 4),
  f16: block(1, 2),
  bf16: block(1, 2),
  q8_0: block(32, 34),
  q5_1: block(32, 24),
  q5_0: block(32, 22),
  q4_1: block(32, 20),
  q4_0: block(32, 18),
  iq4_nl: block(32, 18),
  q6_K: block(256, 210),
  q5_K: block(256, 176),
  q4_K: block(256, 144),
  q3_K: block(256, 110),
  q2_K: block(256, 84),
  iq4_xs: block(256, 136),
  iq3_s: block(256, 110),
  iq3_xxs: block(256, 98),
  iq2_s: block(256, 82),
  iq2_xs: block(256, 74),
  iq2_xxs: block(256, 66),
  iq1_m: block(256, 56),
  iq1_s: block(256, 50),
} as const satisfies Record<string, QuantBlock>;

/** Name of a type as llama.cpp prints it. */
export type QuantType = keyof typeof QUANT_BLOCKS;

/** Bytes of `elements` values in rows of whole blocks. */
export function quantBytes(type: QuantType, elements: number): number {
  const { elements: size, bytes } = QUANT_BLOCKS[type];
  invariant(elements % size === 0, `${elements} elements are whole blocks of ${type}`);
  return (elements / size) * bytes;
}
