/** Matrices in the types in which weights are stored, read as numbers. */

import { decodeBlocks, isBlockType } from "../../core/index.ts";
import { bytesOf, DTYPES, type DType } from "../../core/dtype.ts";
import { invariant } from "../../core/errors.ts";
import { e4m3Table } from "../../core/float-formats.ts";

/** Stored numbers. Arithmetic on them is float64; a store rounds once. */
export type Floats = Float32Array | Float64Array;

/** One scale for each block of `rows` × `columns` elements of a matrix that is `width` wide. */
export interface Scale {
  readonly values: Floats;
  readonly rows: number;
  readonly columns: number;
  readonly width: number;
}

/** A run of a buffer that holds a matrix. */
export interface StoredMatrix {
  readonly dtype: DType;
  readonly buffer: ArrayBuffer;
  /** The element of the buffer at which the matrix begins. */
  readonly offset: number;
  readonly scale: Scale | undefined;
}

/** `length` elements from element `from` of a matrix on; both are whole blocks unless the matrix ends. */
export function readStored({ dtype, buffer, offset, scale }: StoredMatrix, from: number, length: number): Floats {
  const first = offset + from;
  invariant(first % DTYPES[dtype].blockElements === 0, `a run of ${dtype} starts with a block, got element ${first}`);
  const values = decodeStored(dtype, buffer, bytesOf(dtype, first), length);
  return scale === undefined ? values : values.map((value, i) => value * scaleAt(scale, first + i));
}

function scaleAt({ values, rows, columns, width }: Scale, element: number): number {
  const row = Math.floor(element / width / rows);
  return values[row * Math.ceil(width / columns) + Math.floor((element % width) / columns)]!;
}

/** Elements of the scale matrix from its start to the one of `element`'s row, all of that row included. */
export function scalesUpTo(element: number, { rows, columns, width }: Omit<Scale, "values">): number {
  return (Math.floor(element / width / rows) + 1) * Math.ceil(width / columns);
}

function decodeStored(dtype: DType, buffer: ArrayBuffer, start: number, length: number): Floats {
  const type = dtype.toUpperCase();
  if (dtype === "f32") return new Float32Array(buffer, start, length);
  if (dtype === "f64") return new Float64Array(buffer, start, length);
  if (dtype === "i8") return Float32Array.from(new Int8Array(buffer, start, length));
  if (dtype === "f8_e4m3") {
    const table = e4m3Table();
    return Float32Array.from(new Uint8Array(buffer, start, length), (byte) => table[byte]!);
  }
  invariant(isBlockType(type), `a stored type is one of floating-point numbers, got ${dtype}`);
  const { blockElements } = DTYPES[dtype];
  const values = new Float32Array(Math.ceil(length / blockElements) * blockElements);
  decodeBlocks(type, new Uint8Array(buffer, start, bytesOf(dtype, length)), values);
  return values.subarray(0, length);
}
