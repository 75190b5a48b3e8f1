/** A tensor to write: its rows, made a slab at a time and encoded in its type. */

import { NumericError } from "../core/errors.ts";
import { encodeElements, type OutputType } from "./elements.ts";
import type { WeightRows } from "./weight-rows.ts";

export interface OutputTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: OutputType | "F8_E4M3" | "F8_E8M0" | "I8";
  readonly bytes: number;
  /** Its bytes in order; called once, when they are due. */
  readonly chunks: () => AsyncIterable<Uint8Array>;
}

/** Values that are in memory at a time; 8 MB of f32, and about as much again where rows are rearranged. */
const SLAB_VALUES = 2 ** 21;
/** The largest f16; what is above would be written as infinity. */
const MAX_F16 = 65504;

/**
 * The bytes of rows in a type without scales.
 * @throws NumericError when a value is NaN, infinite, or too large for f16.
 */
export async function* encodedRows(name: string, dtype: OutputType, source: WeightRows): AsyncGenerator<Uint8Array> {
  const limit = dtype === "F16" ? MAX_F16 : Number.MAX_VALUE;
  for await (const values of rowSlabs(name, source, { limit })) yield encodeElements(dtype, values);
}

interface Slabs {
  /** Slabs begin at multiples of so many rows. Default 1. */
  readonly step?: number;
  /** The largest magnitude that can be written. Default: any finite one. */
  readonly limit?: number;
}

/**
 * All rows of a tensor in slabs.
 * @throws NumericError when a value is NaN, infinite, or beyond the limit.
 */
export async function* rowSlabs(
  name: string,
  source: WeightRows,
  { step = 1, limit = Number.MAX_VALUE }: Slabs,
): AsyncGenerator<Float32Array> {
  const { rows, columns } = source;
  const slab = step * Math.max(1, Math.floor(SLAB_VALUES / columns / step));
  for (let first = 0; first < rows; first += slab) {
    const values = await source.read(first, Math.min(slab, rows - first));
    checkRange(name, values, limit);
    yield values;
  }
}

function checkRange(name: string, values: Float32Array, limit: number): void {
  for (let i = 0; i < values.length; i++) {
    if (Math.abs(values[i]!) <= limit) continue;
    const isFinite = Number.isFinite(values[i]!);
    const rule = isFinite ? `must be at most ${MAX_F16} in f16` : "must be a finite number";
    const cure = isFinite ? "convert to bf16 or f32" : "the checkpoint is damaged; copy or download it again";
    throw new NumericError(name, rule, values[i]!, cure);
  }
}

/** Groups of at most `maxBytes` each, one tensor at least, in order. */
export function splitBySize<T extends { readonly bytes: number }>(tensors: readonly T[], maxBytes: number): T[][] {
  const groups: T[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    if (bytes + tensor.bytes > maxBytes && bytes > 0) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)!.push(tensor);
    bytes += tensor.bytes;
  }
  return groups;
}
