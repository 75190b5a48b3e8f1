/**
 * Blocks of 256 values in groups, each with a scale of its own (and a minimum in Q4_K and Q5_K) that is a small whole
 * number times one f16. Arithmetic is that of f32, rounded after each operation.
 *
 * **Source:** ggml-org/ggml ggml-common.h (layouts); PyPI gguf 0.19 quants.py (rounding).
 */

import type { DecodeBlock } from "./block-codec.ts";
import { halfAt } from "./plain-blocks.ts";

const { fround } = Math;

/** Groups of Q4_K and Q5_K. */
export const GROUPS = 8;
const GROUP_ELEMENTS = 32;

/** The six bits of group `g`'s scale, in the twelve bytes at `at`. */
function scaleCode(blocks: Uint8Array, at: number, g: number): number {
  return g < 4 ? blocks[at + g]! & 63 : (blocks[at + 4 + g]! & 15) | ((blocks[at + g - 4]! >>> 6) << 4);
}

/** The six bits of group `g`'s minimum. */
function minCode(blocks: Uint8Array, at: number, g: number): number {
  return g < 4 ? blocks[at + 4 + g]! & 63 : (blocks[at + 4 + g]! >>> 4) | ((blocks[at + g]! >>> 6) << 4);
}

export const decodeQ4K: DecodeBlock = (blocks, from, out, to) => {
  const scale = halfAt(blocks, from);
  const min = halfAt(blocks, from + 2);
  for (let g = 0; g < GROUPS; g++) {
    const d = fround(scale * scaleCode(blocks, from + 4, g));
    const m = fround(min * minCode(blocks, from + 4, g));
    const at = from + 16 + (g >> 1) * GROUP_ELEMENTS;
    const shift = (g & 1) * 4;
    const begin = to + g * GROUP_ELEMENTS;
    for (let i = 0; i < GROUP_ELEMENTS; i++) out[begin + i] = fround(d * ((blocks[at + i]! >>> shift) & 15)) - m;
  }
};

export const decodeQ5K: DecodeBlock = (blocks, from, out, to) => {
  const scale = halfAt(blocks, from);
  const min = halfAt(blocks, from + 2);
  for (let g = 0; g < GROUPS; g++) {
    const d = fround(scale * scaleCode(blocks, from + 4, g));
    const m = fround(min * minCode(blocks, from + 4, g));
    const at = from + 48 + (g >> 1) * GROUP_ELEMENTS;
    const shift = (g & 1) * 4;
    const begin = to + g * GROUP_ELEMENTS;
    for (let i = 0; i < GROUP_ELEMENTS; i++) {
      const code = ((blocks[at + i]! >>> shift) & 15) | (((blocks[from + 16 + i]! >>> g) & 1) << 4);
      out[begin + i] = fround(d * code) - m;
    }
  }
};

/** Two halves of 128: four runs of 32 whose low bits share 64 bytes and whose high bits share 32. */
export const decodeQ6K: DecodeBlock = (blocks, from, out, to) => {
  const scale = halfAt(blocks, from + 208);
  for (let i = 0; i < 256; i++) {
    const half = i >> 7;
    const run = (i >> 5) & 3;
    const low = blocks[from + half * 64 + (run & 1) * 32 + (i & 31)]! >>> ((run >> 1) * 4);
    const high = blocks[from + 128 + half * 32 + (i & 31)]! >>> (run * 2);
    const code = ((low & 15) | ((high & 3) << 4)) - 32;
    out[to + i] = fround(scale * ((blocks[from + 192 + (i >> 4)]! << 24) >> 24)) * code;
  }
};
