/**
 * Blocks of 32 values with one scale, and a minimum in the types that end with 1. Halves of a byte hold values i and
 * i + 16. Arithmetic is that of f32, rounded after each operation.
 *
 * **Source:** ggml-org/ggml ggml-common.h (layouts); PyPI gguf 0.19 quants.py (rounding).
 */

import type { DecodeBlock, EncodeBlock } from "./block-codec.ts";
import { halfAt, putHalf } from "./plain-blocks.ts";

const ELEMENTS = 32;
const HALF = 16;
const { fround } = Math;

/** Value `i` of 4-bit codes that begin at byte `at`. */
function nibble(blocks: Uint8Array, at: number, i: number): number {
  return i < HALF ? blocks[at + i]! & 15 : blocks[at + i - HALF]! >>> 4;
}

/** Value `i` of 5-bit codes: four bits at `at`, the fifth in the four bytes at `high`. */
function fiveBits(blocks: Uint8Array, high: number, at: number, i: number): number {
  return nibble(blocks, at, i) | (((blocks[high + (i >> 3)]! >>> (i & 7)) & 1) << 4);
}

export const decodeQ40: DecodeBlock = (blocks, from, out, to) => {
  const scale = halfAt(blocks, from);
  for (let i = 0; i < ELEMENTS; i++) out[to + i] = scale * (nibble(blocks, from + 2, i) - 8);
};

export const decodeQ41: DecodeBlock = (blocks, from, out, to) => {
  const scale = halfAt(blocks, from);
  const min = halfAt(blocks, from + 2);
  for (let i = 0; i < ELEMENTS; i++) out[to + i] = fround(scale * nibble(blocks, from + 4, i)) + min;
};

export const decodeQ50: DecodeBlock = (blocks, from, out, to) => {
  const scale = halfAt(blocks, from);
  for (let i = 0; i < ELEMENTS; i++) out[to + i] = scale * (fiveBits(blocks, from + 2, from + 6, i) - 16);
};

export const decodeQ51: DecodeBlock = (blocks, from, out, to) => {
  const scale = halfAt(blocks, from);
  const min = halfAt(blocks, from + 2);
  for (let i = 0; i < ELEMENTS; i++) out[to + i] = fround(scale * fiveBits(blocks, from + 4, from + 8, i)) + min;
};

export const decodeQ80: DecodeBlock = (blocks, from, out, to) => {
  const scale = halfAt(blocks, from);
  for (let i = 0; i < ELEMENTS; i++) out[to + i] = scale * ((blocks[from + 2 + i]! << 24) >> 24);
};

const IQ4_NL_VALUES = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113] as const;

export const decodeIq4Nl: DecodeBlock = (blocks, from, out, to) => {
  const scale = halfAt(blocks, from);
  for (let i = 0; i < ELEMENTS; i++) out[to + i] = scale * IQ4_NL_VALUES[nibble(blocks, from + 2, i)]!;
};

/** e2m1 doubled: ggml halves the scale instead. Zero has no sign there. */
const MXFP4_VALUES = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12] as const;

export const decodeMxfp4: DecodeBlock = (blocks, from, out, to) => {
  const scale = 2 ** (blocks[from]! - 128);
  for (let i = 0; i < ELEMENTS; i++) out[to + i] = scale * MXFP4_VALUES[nibble(blocks, from + 1, i)]!;
};

/** The value of largest magnitude, the first of equals. */
function largest(values: Float32Array, from: number): number {
  let found = 0;
  for (let i = from; i < from + ELEMENTS; i++) if (Math.abs(values[i]!) > Math.abs(found)) found = values[i]!;
  return found;
}

/** `1 / scale` in f32; 0 where the scale is 0 or too small for it. */
function inverse(scale: number): number {
  const inverted = fround(1 / scale);
  return Number.isFinite(inverted) ? inverted : 0;
}

/** The code of a value whose middle code is `middle`: from 0 to 2 · middle − 1. */
function codeOf(value: number, inverted: number, middle: number): number {
  return Math.min(2 * middle - 1, Math.trunc(fround(fround(value * inverted) + middle + 0.5)));
}

/** The largest magnitude gets the lowest code, so that its sign decides the sign of the scale. */
export const encodeQ40: EncodeBlock = (values, from, out, to) => {
  const scale = fround(largest(values, from) / -8);
  const inverted = inverse(scale);
  putHalf(out, to, scale);
  for (let i = 0; i < HALF; i++) {
    const low = codeOf(values[from + i]!, inverted, 8);
    out[to + 2 + i] = low | (codeOf(values[from + HALF + i]!, inverted, 8) << 4);
  }
};

export const encodeQ50: EncodeBlock = (values, from, out, to) => {
  const scale = fround(largest(values, from) / -16);
  const inverted = inverse(scale);
  putHalf(out, to, scale);
  out.fill(0, to + 2, to + 22);
  for (let i = 0; i < ELEMENTS; i++) {
    const code = codeOf(values[from + i]!, inverted, 16);
    out[to + 6 + (i % HALF)]! |= (code & 15) << (i < HALF ? 0 : 4);
    out[to + 2 + (i >> 3)]! |= (code >>> 4) << (i & 7);
  }
};

export const encodeQ80: EncodeBlock = (values, from, out, to) => {
  const scale = fround(Math.abs(largest(values, from)) / 127);
  const inverted = inverse(scale);
  putHalf(out, to, scale);
  for (let i = 0; i < ELEMENTS; i++) out[to + 2 + i] = roundAway(fround(values[from + i]! * inverted));
};

/** Halves go away from zero. */
function roundAway(value: number): number {
  return Math.sign(value) * Math.floor(Math.abs(value) + 0.5);
}
