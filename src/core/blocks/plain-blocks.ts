/** Plain types seen as blocks of one element, so that every stored type is read and written in one way. */

import { toBf16Bits } from "../dtype.ts";
import { f16Table, toF16Bits } from "../float-formats.ts";
import type { DecodeBlock, EncodeBlock } from "./block-codec.ts";

const word = new DataView(new ArrayBuffer(4));

export const decodeF32: DecodeBlock = (blocks, from, out, to) => {
  for (let i = 0; i < 4; i++) word.setUint8(i, blocks[from + i]!);
  out[to] = word.getFloat32(0, true);
};

export const encodeF32: EncodeBlock = (values, from, out, to) => {
  word.setFloat32(0, values[from]!, true);
  for (let i = 0; i < 4; i++) out[to + i] = word.getUint8(i);
};

export const decodeF16: DecodeBlock = (blocks, from, out, to) => {
  out[to] = halfAt(blocks, from);
};

export const encodeF16: EncodeBlock = (values, from, out, to) => {
  putHalf(out, to, values[from]!);
};

export const decodeBf16: DecodeBlock = (blocks, from, out, to) => {
  word.setUint8(0, 0);
  word.setUint8(1, 0);
  word.setUint8(2, blocks[from]!);
  word.setUint8(3, blocks[from + 1]!);
  out[to] = word.getFloat32(0, true);
};

export const encodeBf16: EncodeBlock = (values, from, out, to) => {
  const bits = toBf16Bits(values[from]!);
  out[to] = bits & 255;
  out[to + 1] = bits >>> 8;
};

/** The f16 at a byte. */
export function halfAt(blocks: Uint8Array, at: number): number {
  return f16Table()[blocks[at]! | (blocks[at + 1]! << 8)]!;
}

export function putHalf(out: Uint8Array, at: number, value: number): void {
  const bits = toF16Bits(value);
  out[at] = bits & 255;
  out[at + 1] = bits >>> 8;
}
