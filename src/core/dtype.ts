/** Element types and the bf16 codec. Quantised block types will be further descriptors; nothing here assumes one. */

export type DType = "f64" | "f32" | "bf16" | "i32";

export interface DTypeInfo {
  readonly name: DType;
  /** The number that stands for the type in a command list; the same in Rust. */
  readonly id: number;
  /** Elements that share one block; 1 for plain types. */
  readonly blockElements: number;
  readonly blockBytes: number;
}

export const DTYPES: Readonly<Record<DType, DTypeInfo>> = Object.freeze({
  f32: { name: "f32", id: 0, blockElements: 1, blockBytes: 4 },
  bf16: { name: "bf16", id: 1, blockElements: 1, blockBytes: 2 },
  i32: { name: "i32", id: 2, blockElements: 1, blockBytes: 4 },
  f64: { name: "f64", id: 3, blockElements: 1, blockBytes: 8 },
});

/** Bytes of `elements` values of a type. */
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
