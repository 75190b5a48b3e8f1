/**
 * The scales of matrices whose stored values alone are not the weights: fp8 with one for each block of 128 × 128, and
 * signed bytes with one for each row or for each group of columns of a row.
 *
 * **Source:** deepseek-ai/DeepSeek-V3 README_WEIGHTS.md (weight_scale_inv); vllm-project/compressed-tensors (weight_scale).
 */

import { FormatError } from "../core/errors.ts";
import { FP8_BLOCK, int8Groups } from "../core/index.ts";
import { SCALE_SUFFIXES, type OpenTensors, type StoredTensor } from "../formats/index.ts";
import type { StoredPart } from "./places.ts";

type Tensors = OpenTensors<StoredTensor>["tensors"];

const SUFFIXES: Readonly<Record<string, string>> = SCALE_SUFFIXES;
const SCALE_TYPES = new Set(["F32", "BF16", "F16"]);

export function isScaled(dtype: string): boolean {
  return Object.hasOwn(SUFFIXES, dtype);
}

/** Whether a tensor holds the scales of a weight that a checkpoint may have. */
export function isScaleOf(name: string, tensors: Tensors, isWeight: (name: string) => boolean): boolean {
  return Object.entries(SUFFIXES).some(([dtype, suffix]) => {
    const weight = name.slice(0, -suffix.length);
    return name.endsWith(suffix) && isWeight(weight) && tensors.get(weight)?.dtype === dtype;
  });
}

/** Where the scales of a matrix lie. */
export interface ScalePart {
  /** The rows of scales that the matrix touches. */
  readonly part: StoredPart;
  /** Rows and columns of the matrix that share a scale. */
  readonly rows: number;
  readonly columns: number;
  /** Rows of the first block that stand before the matrix: those of another one fused with it. */
  readonly skip: number;
}

/** @param weight - `[rows, columns]`, of a type with scales. @throws FormatError when they are missing or of another shape. */
export function scaleOf(weight: StoredPart, tensors: Tensors): ScalePart {
  const name = weight.name + SUFFIXES[weight.tensor.dtype]!;
  const scales = { name, found: tensors.get(name) };
  return weight.tensor.dtype === "I8" ? rowScales(weight, scales) : blockScales(weight, scales);
}

interface Scales {
  readonly name: string;
  readonly found: StoredTensor | undefined;
}

function blockScales({ tensor: weight, at, shape }: StoredPart, scales: Scales): ScalePart {
  const [rows = 0, columns = 0] = shape;
  const blocks = (n: number): number => Math.ceil(n / FP8_BLOCK);
  const [allRows, allColumns] = weight.shape.slice(-2) as [number, number];
  const due = [...weight.shape.slice(0, -2), blocks(allRows), blocks(allColumns)];
  const tensor = checkScales(weight.file, scales, due, "block of 128 × 128");
  const [matrix, row] = [Math.floor(at / (allRows * columns)), (at / columns) % allRows];
  const first = matrix * blocks(allRows) + Math.floor(row / FP8_BLOCK);
  const skip = row % FP8_BLOCK;
  const part = {
    ...{ name: scales.name, tensor },
    ...{ at: first * blocks(columns), shape: [blocks(skip + rows), blocks(columns)] },
  };
  return { part, rows: FP8_BLOCK, columns: FP8_BLOCK, skip };
}

function rowScales({ tensor: weight, at, shape }: StoredPart, scales: Scales): ScalePart {
  const [rows = 0, columns = 0] = shape;
  const found = scales.found?.shape ?? [];
  const rule = int8Groups(weight.shape, found);
  const due = rule === undefined ? [...weight.shape.slice(0, -1), 1] : found;
  const tensor = checkScales(weight.file, scales, due, "row, or group of columns");
  const groups = rule ?? 1;
  const part = { name: scales.name, tensor, at: (at / columns) * groups, shape: [rows, groups] };
  return { part, rows: 1, columns: columns / groups, skip: 0 };
}

function checkScales(file: string, { name, found }: Scales, due: readonly number[], of: string): StoredTensor {
  if (found?.shape.join() === due.join() && SCALE_TYPES.has(found.dtype)) return found;
  const got = found === undefined ? "none" : `${found.dtype} [${found.shape.join(", ")}]`;
  const cure = `such weights have one f32 scale for each ${of}`;
  throw new FormatError(file, `must hold ${name} as F32 [${due.join(", ")}]`, { got, cure });
}
