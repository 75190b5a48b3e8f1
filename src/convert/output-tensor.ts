/** A tensor to write: its rows, made a slab at a time and encoded in its type. */

import { NumericError } from "../core/errors.ts";
import { encodeElements, type OutputType } from "./elements.ts";
import type { WeightRows } from "./weight-rows.ts";

export interface OutputTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: OutputType;
  readonly bytes: number;
  readonly rows: () => WeightRows;
}

/** Values that are in memory at a time; 8 MB of f32, and about as much again where rows are rearranged. */
const SLAB_VALUES = 2 ** 21;
/** The largest f16; what is above would be written as infinity. */
const MAX_F16 = 65504;

/**
 * The bytes of a tensor in order.
 * @throws NumericError when a value is NaN, infinite, or too large for f16.
 */
export async function* encodedChunks(tensor: OutputTensor): AsyncGenerator<Uint8Array> {
  const source = tensor.rows();
  const slab = Math.max(1, Math.floor(SLAB_VALUES / source.columns));
  for (let first = 0; first < source.rows; first += slab) {
    const values = await source.read(first, Math.min(slab, source.rows - first));
    checkRange(tensor, values);
    yield encodeElements(tensor.dtype, values);
  }
}

function checkRange({ name, dtype }: OutputTensor, values: Float32Array): void {
  const largest = dtype === "F16" ? MAX_F16 : Number.MAX_VALUE;
  for (let i = 0; i < values.length; i++) {
    if (Math.abs(values[i]!) <= largest) continue;
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
