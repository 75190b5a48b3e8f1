/** Rows of tensors as they stand in a file: plain, in blocks, or as fp8, int8 and fp4 with a tensor of scales beside. */

import { FormatError, UnsupportedError } from "../core/errors.ts";
import { decodeFp4Rows, decodeFp8Rows, decodeInt8Rows, FP8_BLOCK, int8Groups } from "../core/index.ts";
import { SCALE_SUFFIXES, scaleNames, type OpenTensors, type StoredTensor } from "../formats/index.ts";
import { checkReadable, decodeElements } from "./elements.ts";
import { matrixShape, stackRows, type WeightRows } from "./weight-rows.ts";

type Open = OpenTensors<StoredTensor>;

/**
 * The values of a tensor; its scales are found under the names of V3, of V4, of compressed-tensors and of DeepSeek's demo.
 * @throws FormatError when a quantised tensor has no scales, or of another shape. @throws UnsupportedError for a type that
 * holds no weights.
 */
export function storedRows(open: Open, name: string): WeightRows {
  const { dtype, file } = open.tensors.get(name)!;
  if (dtype !== "F8_E4M3" && dtype !== "I8") return plainRows(open, name);
  const scale = scaleNames(name).find((found) => open.tensors.has(found));
  if (scale === undefined) {
    throw new FormatError(file, `must hold the scales of ${name}, which is ${dtype}`, { cure: "copy the file again" });
  }
  if (dtype === "F8_E4M3") return fp8Rows(open, name, scale);
  return scale === name + SCALE_SUFFIXES.I8 ? int8Rows(open, name, scale) : fp4Rows(open, name, scale);
}

function plainRows(open: Open, name: string): WeightRows {
  const { dtype, shape, bytes, file } = open.tensors.get(name)!;
  checkReadable(`${file} ${name}`, dtype);
  const { rows, columns } = matrixShape(shape);
  const rowBytes = bytes / rows;
  return {
    rows,
    columns,
    read: async (first, count) =>
      decodeElements(dtype, await open.read(name, first * rowBytes, count * rowBytes), count * columns),
  };
}

/** A matrix, or one for each expert, whose blocks begin anew. */
function fp8Rows(open: Open, name: string, scale: string): WeightRows {
  const { shape } = open.tensors.get(name)!;
  const blocksOf = (n: number): number => Math.ceil(n / FP8_BLOCK);
  const [rows = 0, columns = 0] = shape.slice(-2);
  const experts = matrixShape(shape).rows / rows;
  const scales = plainRows(open, scale);
  checkScale(open, scale, [...shape.slice(0, -2), blocksOf(rows), blocksOf(columns)]);
  const matrix = (expert: number): WeightRows => ({
    rows,
    columns,
    read: async (first, count) => {
      const block = Math.floor(first / FP8_BLOCK);
      const own = await scales.read(expert * blocksOf(rows) + block, blocksOf(first + count) - block);
      const out = new Float32Array(count * columns);
      const bytes = await open.read(name, (expert * rows + first) * columns, count * columns);
      decodeFp8Rows(bytes, own, columns, first % FP8_BLOCK, out);
      return out;
    },
  });
  return experts === 1 ? matrix(0) : stackRows(Array.from({ length: experts }, (_, e) => matrix(e)));
}

/** One scale for each row, or for each group of columns of a row. */
function int8Rows(open: Open, name: string, scale: string): WeightRows {
  const { shape } = open.tensors.get(name)!;
  const { rows, columns } = matrixShape(shape);
  const held = open.tensors.get(scale)!;
  const groups = int8Groups(shape, held.shape);
  if (groups === undefined) checkScale(open, scale, [...shape.slice(0, -1), 1]);
  checkReadable(`${held.file} ${scale}`, held.dtype);
  const scaleBytes = held.bytes / rows;
  const width = columns / (groups ?? 1);
  return {
    rows,
    columns,
    read: async (first, count) => {
      const out = new Float32Array(count * columns);
      const bytes = await open.read(name, first * columns, count * columns);
      const scales = await open.read(scale, first * scaleBytes, count * scaleBytes);
      decodeInt8Rows(bytes, decodeElements(held.dtype, scales, out.length / width), out);
      return out;
    },
  };
}

/** Two values a byte; the scales of 32 columns each are e8m0. */
function fp4Rows(open: Open, name: string, scale: string): WeightRows {
  const { shape } = open.tensors.get(name)!;
  const [rows = 0, packed = 0] = shape;
  const blocks = packed / 16;
  checkScale(open, scale, [rows, blocks]);
  const { dtype } = open.tensors.get(scale)!;
  if (dtype !== "F8_E8M0") throw new UnsupportedError(scale, "must be powers of two", dtype, ["F8_E8M0"]);
  return {
    rows,
    columns: 2 * packed,
    read: async (first, count) => {
      const out = new Float32Array(2 * count * packed);
      const scales = await open.read(scale, first * blocks, count * blocks);
      decodeFp4Rows(await open.read(name, first * packed, count * packed), scales, out);
      return out;
    },
  };
}

function checkScale(open: Open, scale: string, due: readonly number[]): void {
  const { shape, file } = open.tensors.get(scale)!;
  if (shape.join() === due.join()) return;
  throw new FormatError(file, `must hold ${scale} as [${due.join(", ")}]`, { got: shape });
}
