/**
 * Matrices of signed bytes with one scale for each row or for each group of columns of a row: `value = byte · scale`.
 *
 * **Source:** vllm-project/compressed-tensors, format int-quantized with strategy channel or group, symmetric.
 */

import { invariant } from "./errors.ts";

const LARGEST = 127;

/**
 * The bytes of whole rows and their scales: largest magnitude of the row / 127, 1 for a row of zeros.
 *
 * @param values - `[rows, columns]`, finite.
 * @returns weight `[rows, columns]` from −127 to 127, scales `[rows]`.
 */
export function encodeInt8Rows(values: Float32Array, columns: number): { weight: Int8Array; scales: Float32Array } {
  const weight = new Int8Array(values.length);
  const scales = new Float32Array(values.length / columns);
  for (let row = 0; row < scales.length; row++) {
    const own = values.subarray(row * columns, (row + 1) * columns);
    const scale = scaleOf(own);
    scales[row] = scale;
    for (let i = 0; i < columns; i++) {
      weight[row * columns + i] = Math.min(LARGEST, Math.max(-LARGEST, Math.round(own[i]! / scale)));
    }
  }
  return { weight, scales };
}

/** A row of zeros, and one whose scale no f32 can hold, has scale 1. */
function scaleOf(row: Float32Array): number {
  let largest = 0;
  for (const value of row) largest = Math.max(largest, Math.abs(value));
  const scale = Math.fround(largest / LARGEST);
  return scale === 0 ? 1 : scale;
}

/**
 * The groups of columns of each row that have a scale of their own, 1 for whole rows; undefined where scales of this shape
 * are not those of the weight.
 *
 * @param weight - shape `[..., rows, columns]`.
 * @param scales - shape `[..., rows, groups]` or `[..., rows]`.
 */
export function int8Groups(weight: readonly number[], scales: readonly number[]): number | undefined {
  const [rows, columns = 0] = [weight.slice(0, -1).join(), weight.at(-1)];
  if (scales.join() === rows) return 1;
  const groups = scales.at(-1) ?? 0;
  return scales.slice(0, -1).join() === rows && columns % groups === 0 ? groups : undefined;
}

/**
 * `out = weight · scale` of rows.
 *
 * @param weight - `[rows, columns]` signed bytes.
 * @param scales - `[rows, groups]`
 * @param out - `[rows, columns]`
 */
export function decodeInt8Rows(weight: Uint8Array, scales: Float32Array, out: Float32Array): void {
  const width = out.length / scales.length;
  invariant(weight.length === out.length && Number.isInteger(width), "a scale for each group of columns");
  for (let i = 0; i < out.length; i++) out[i] = ((weight[i]! << 24) >> 24) * scales[Math.floor(i / width)]!;
}
