/** Types whose values are stored in blocks, under their names in GGUF, and how blocks become f32 and back. */

import { DTYPES, type DType, type DTypeInfo } from "../dtype.ts";
import { invariant } from "../errors.ts";
import { decodeQ4K, decodeQ5K, decodeQ6K } from "./k-blocks.ts";
import { encodeQ4K, encodeQ6K } from "./k-search.ts";
import { decodeBf16, decodeF16, decodeF32, encodeBf16, encodeF16, encodeF32 } from "./plain-blocks.ts";
import {
  decodeIq4Nl,
  decodeMxfp4,
  decodeQ40,
  decodeQ41,
  decodeQ50,
  decodeQ51,
  decodeQ80,
  encodeQ40,
  encodeQ50,
  encodeQ80,
} from "./small-blocks.ts";

/** Reads the block at byte `from` into values at `to`. */
export type DecodeBlock = (blocks: Uint8Array, from: number, out: Float32Array, to: number) => void;
/** Writes the values at `from` as the block at byte `to`. */
export type EncodeBlock = (values: Float32Array, from: number, out: Uint8Array, to: number) => void;

interface BlockCodec {
  readonly decode: DecodeBlock;
  /** Absent for types that are only read. */
  readonly encode?: EncodeBlock;
}

const CODECS = {
  F32: { decode: decodeF32, encode: encodeF32 },
  F16: { decode: decodeF16, encode: encodeF16 },
  BF16: { decode: decodeBf16, encode: encodeBf16 },
  Q4_0: { decode: decodeQ40, encode: encodeQ40 },
  Q4_1: { decode: decodeQ41 },
  Q5_0: { decode: decodeQ50, encode: encodeQ50 },
  Q5_1: { decode: decodeQ51 },
  Q8_0: { decode: decodeQ80, encode: encodeQ80 },
  IQ4_NL: { decode: decodeIq4Nl },
  MXFP4: { decode: decodeMxfp4 },
  Q4_K: { decode: decodeQ4K, encode: encodeQ4K },
  Q5_K: { decode: decodeQ5K },
  Q6_K: { decode: decodeQ6K, encode: encodeQ6K },
} as const satisfies Readonly<Record<string, BlockCodec>>;

export type BlockType = keyof typeof CODECS;
/** Types that can be written. */
export type WritableBlockType = {
  [T in BlockType]: (typeof CODECS)[T] extends { encode: EncodeBlock } ? T : never;
}[BlockType];

export function isBlockType(name: string): name is BlockType {
  return Object.hasOwn(CODECS, name);
}

export const BLOCK_TYPES = Object.keys(CODECS) as readonly BlockType[];

/** The element type that stands for a block type in kernel calls. */
export function dtypeOfBlocks(type: BlockType): DType {
  return type.toLowerCase() as Lowercase<BlockType>;
}

function sizesOf(type: BlockType): DTypeInfo {
  return DTYPES[dtypeOfBlocks(type)];
}

/** Elements of one block of a type. */
export function blockElementsOf(type: BlockType): number {
  return sizesOf(type).blockElements;
}

/**
 * The values of whole blocks, in f32 exactly as `gguf.quants.dequantize` has them.
 * @param out - filled from its start; must hold all of them.
 */
export function decodeBlocks(type: BlockType, blocks: Uint8Array, out: Float32Array): void {
  const { blockElements, blockBytes } = sizesOf(type);
  const { decode } = CODECS[type];
  const count = blocks.length / blockBytes;
  invariant(
    Number.isInteger(count) && out.length >= count * blockElements,
    `whole blocks of ${type}, and room for them`,
  );
  for (let block = 0; block < count; block++) decode(blocks, block * blockBytes, out, block * blockElements);
}

/** The blocks of values, which must be a whole number of blocks. */
export function encodeBlocks(type: WritableBlockType, values: Float32Array): Uint8Array {
  const { blockElements, blockBytes } = sizesOf(type);
  const { encode } = CODECS[type];
  const count = values.length / blockElements;
  invariant(Number.isInteger(count), `whole blocks of ${type}`);
  const out = new Uint8Array(count * blockBytes);
  for (let block = 0; block < count; block++) encode(values, block * blockElements, out, block * blockBytes);
  return out;
}

/** The type that is written instead when rows are no whole blocks. **Source:** llama.cpp src/llama-quant.cpp. */
const FALLBACKS: Partial<Record<WritableBlockType, WritableBlockType>> = { Q4_K: "Q5_0", Q6_K: "Q8_0" };

/** The type in which rows of `columns` values can be written: `type`, what llama.cpp falls back to, or F16. */
export function typeForRows(type: WritableBlockType, columns: number): WritableBlockType {
  if (columns % blockElementsOf(type) === 0) return type;
  const next = FALLBACKS[type];
  return next === undefined ? "F16" : typeForRows(next, columns);
}
