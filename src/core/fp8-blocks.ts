/**
 * Matrices of fp8 e4m3 with a scale for each square block, and of packed fp4 with a scale for each 32 columns, a slab
 * of rows at a time. Blocks at the lower and right edge may be partial.
 *
 * **Source:** deepseek-ai/DeepSeek-V3 inference/kernel.py (weight_dequant) and DeepSeek-V4-Flash inference/convert.py.
 */

import { invariant } from "./errors.ts";
import { E2M1_VALUES, E4M3_MAX, e4m3Table, fromE8m0Bits, toE4m3Bits, toE8m0BitsUp } from "./float-formats.ts";

/** Side of a block of fp8 weights. */
export const FP8_BLOCK = 128;
/** Columns of fp4 that share a scale. */
const FP4_BLOCK = 32;

/**
 * `out = weight · scale` for rows [firstRow, firstRow + rows).
 *
 * @param weight - `[rows, columns]` e4m3 bytes of the slab.
 * @param scales - `[ceil(allRows / 128), ceil(columns / 128)]` of the whole matrix.
 * @param out - `[rows, columns]`
 */
export function decodeFp8Rows(
  weight: Uint8Array,
  scales: Float32Array,
  columns: number,
  firstRow: number,
  out: Float32Array,
): void {
  const table = e4m3Table();
  const blocks = Math.ceil(columns / FP8_BLOCK);
  invariant(weight.length === out.length && weight.length % columns === 0, "a slab has whole rows");
  for (let row = 0; row * columns < weight.length; row++) {
    const scaleRow = Math.floor((firstRow + row) / FP8_BLOCK) * blocks;
    for (let block = 0; block < blocks; block++) {
      const scale = scales[scaleRow + block]!;
      const end = row * columns + Math.min(columns, (block + 1) * FP8_BLOCK);
      for (let i = row * columns + block * FP8_BLOCK; i < end; i++) out[i] = table[weight[i]!]! * scale;
    }
  }
}

/** How scales are chosen: any f32, or powers of two (`ue8m0`). */
export type ScaleFormat = "ue8m0" | null;

/**
 * The e4m3 bytes of rows that begin at a multiple of 128, and the scales of their blocks: largest magnitude / 448, for
 * ue8m0 the power of two above it.
 *
 * @param values - `[rows, columns]`; `rows` is a multiple of 128 unless the matrix ends with them.
 * @returns weight `[rows, columns]` and scales `[ceil(rows / 128), ceil(columns / 128)]`.
 */
export function encodeFp8Rows(
  values: Float32Array,
  columns: number,
  scaleFormat: ScaleFormat,
): { weight: Uint8Array; scales: Float32Array } {
  const rows = values.length / columns;
  const blocks = Math.ceil(columns / FP8_BLOCK);
  const scales = new Float32Array(Math.ceil(rows / FP8_BLOCK) * blocks);
  const weight = new Uint8Array(values.length);
  for (let i = 0; i < scales.length; i++) {
    const block = blockAt(i, rows, columns);
    scales[i] = fp8Scale(largestOf(values, block), scaleFormat);
    encodeBlock(values, block, scales[i]!, weight);
  }
  return { weight, scales };
}

/** Rows and columns of a block in rows of `width`. */
interface Block {
  readonly rows: readonly [begin: number, end: number];
  readonly columns: readonly [begin: number, end: number];
  readonly width: number;
}

function blockAt(i: number, rows: number, width: number): Block {
  const blocks = Math.ceil(width / FP8_BLOCK);
  const [row, column] = [Math.floor(i / blocks) * FP8_BLOCK, (i % blocks) * FP8_BLOCK];
  const [rowEnd, columnEnd] = [Math.min(rows, row + FP8_BLOCK), Math.min(width, column + FP8_BLOCK)];
  return { rows: [row, rowEnd], columns: [column, columnEnd], width };
}

function largestOf(values: Float32Array, { rows, columns, width }: Block): number {
  let largest = 0;
  for (let row = rows[0]; row < rows[1]; row++) {
    for (let i = row * width + columns[0]; i < row * width + columns[1]; i++) {
      const size = Math.abs(values[i]!);
      if (size > largest) largest = size;
    }
  }
  return largest;
}

function encodeBlock(values: Float32Array, { rows, columns, width }: Block, scale: number, out: Uint8Array): void {
  for (let row = rows[0]; row < rows[1]; row++) {
    for (let i = row * width + columns[0]; i < row * width + columns[1]; i++) out[i] = toE4m3Bits(values[i]! / scale);
  }
}

/** A block of zeros has scale 1. */
function fp8Scale(largest: number, format: ScaleFormat): number {
  if (largest === 0) return 1;
  const scale = largest / E4M3_MAX;
  return format === null ? scale : fromE8m0Bits(toE8m0BitsUp(Math.fround(scale)));
}

/**
 * The values of packed fp4: two in a byte, the even column in the low half, with an e8m0 scale for each 32 columns.
 *
 * @param packed - `[rows, columns / 2]`
 * @param scales - `[rows, columns / 32]` e8m0 bytes of the same rows.
 * @param out - `[rows, columns]`
 */
export function decodeFp4Rows(packed: Uint8Array, scales: Uint8Array, out: Float32Array): void {
  invariant(out.length === 2 * packed.length && out.length === FP4_BLOCK * scales.length, "a scale for each 32 values");
  for (let block = 0; block < scales.length; block++) {
    const scale = fromE8m0Bits(scales[block]!);
    for (let i = (block * FP4_BLOCK) / 2; i < ((block + 1) * FP4_BLOCK) / 2; i++) {
      out[2 * i] = E2M1_VALUES[packed[i]! & 15]! * scale;
      out[2 * i + 1] = E2M1_VALUES[packed[i]! >>> 4]! * scale;
    }
  }
}
