/** Element types, the one table of their sizes, and the bf16 codec. */

export type DType =
  | "f64"
  | "f32"
  | "bf16"
  | "i32"
  | "f16"
  | "f8_e4m3"
  | "i8"
  | "q8_0"
  | "q4_0"
  | "q4_1"
  | "q5_0"
  | "q5_1"
  | "q4_k"
  | "q5_k"
  | "q6_k"
  | "iq4_nl"
  | "mxfp4";

export interface DTypeInfo {
  readonly name: DType;
  /** The number that stands for the type in a command list; the same in Rust. */
  readonly id: number;
  /** Elements that share one block; 1 for plain types. */
  readonly blockElements: number;
  readonly blockBytes: number;
}

/** **Source** of the block sizes: ggml-org/ggml ggml-common.h. */
export const DTYPES: Readonly<Record<DType, DTypeInfo>> = Object.freeze({
  f32: { name: "f32", id: 0, blockElements: 1, blockBytes: 4 },
  bf16: { name: "bf16", id: 1, blockElements: 1, blockBytes: 2 },
  i32: { name: "i32", id: 2, blockElements: 1, blockBytes: 4 },
  f64: { name: "f64", id: 3, blockElements: 1, blockBytes: 8 },
  f16: { name: "f16", id: 4, blockElements: 1, blockBytes: 2 },
  f8_e4m3: { name: "f8_e4m3", id: 5, blockElements: 1, blockBytes: 1 },
  i8: { name: "i8", id: 6, blockElements: 1, blockBytes: 1 },
  q8_0: { name: "q8_0", id: 7, blockElements: 32, blockBytes: 34 },
  q4_0: { name: "q4_0", id: 8, blockElements: 32, blockBytes: 18 },
  q4_1: { name: "q4_1", id: 9, blockElements: 32, blockBytes: 20 },
  q5_0: { name: "q5_0", id: 10, blockElements: 32, blockBytes: 22 },
  q5_1: { name: "q5_1", id: 11, blockElements: 32, blockBytes: 24 },
  q4_k: { name: "q4_k", id: 12, blockElements: 256, blockBytes: 144 },
  q5_k: { name: "q5_k", id: 13, blockElements: 256, blockBytes: 176 },
  q6_k: { name: "q6_k", id: 14, blockElements: 256, blockBytes: 210 },
  iq4_nl: { name: "iq4_nl", id: 15, blockElements: 32, blockBytes: 18 },
  mxfp4: { name: "mxfp4", id: 16, blockElements: 32, blockBytes: 17 },
});

/** Bytes of `elements` values of a type, in whole blocks. */
export function bytesOf(dtype: DType, elements: number): number {
  const { blockElements, blockBytes } = DTYPES[dtype];
  return Math.ceil(elements / blockElements) * blockBytes;
}

const scratch = new DataView(new ArrayBuffer(4));

/** Rounds to the nearest bfloat16, ties to even; NaN stays NaN. Returns the 16 bits. */
export function toBf16Bits(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  if (Number.isNaN(value)) return ((bits >>> 16) & 0x8000) | 0x7fc0;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function fromBf16Bits(bits: number): number {
  scratch.setUint32(0, (bits & 0xffff) * 0x10000);
  return scratch.getFloat32(0);
}
