/** Rows of tensors as they stand in a file: plain, in blocks, as fp8 or fp4 with a tensor of scales beside. */

import { FormatError, UnsupportedError } from "../core/errors.ts";
import { decodeFp4Rows, decodeFp8Rows } from "../core/index.ts";
import type { OpenTensors, StoredTensor } from "../formats/index.ts";
import { decodeElements } from "./elements.ts";
import { matrixShape, type WeightRows } from "./weight-rows.ts";

/** Side of a block of fp8 weights that shares a scale. */
const FP8_BLOCK = 128;

type Open = OpenTensors<StoredTensor>;

/**
 * The values of a tensor; its scales are found under the names of V3, of V4 and of DeepSeek's demo.
 * @throws FormatError when a quantised tensor has no scales.
 */
export function storedRows(open: Open, name: string): WeightRows {
  const { dtype, file } = open.tensors.get(name)!;
  if (dtype !== "F8_E4M3" && dtype !== "I8") return plainRows(open, name);
  const scale = [`${name}_scale_inv`, name.replace(/\.weight$/, ".scale")].find(
    (found) => found !== name && open.tensors.has(found),
  );
  if (scale === undefined) {
    throw new FormatError(file, `must hold the scales of ${name}, which is ${dtype}`, { cure: "copy the file again" });
  }
  return dtype === "I8" ? fp4Rows(open, name, scale) : fp8Rows(open, name, scale);
}

function plainRows(open: Open, name: string): WeightRows {
  const { dtype, shape, bytes } = open.tensors.get(name)!;
  const { rows, columns } = matrixShape(shape);
  const rowBytes = bytes / rows;
  return {
    rows,
    columns,
    read: async (first, count) =>
      decodeElements(name, dtype, await open.read(name, first * rowBytes, count * rowBytes), count * columns),
  };
}

function fp8Rows(open: Open, name: string, scale: string): WeightRows {
  const { shape } = open.tensors.get(name)!;
  const [rows = 0, columns = 0] = shape;
  const scales = plainRows(open, scale);
  checkScale(open, scale, shape, [Math.ceil(rows / FP8_BLOCK), Math.ceil(columns / FP8_BLOCK)]);
  return {
    rows,
    columns,
    read: async (first, count) => {
      const block = Math.floor(first / FP8_BLOCK);
      const own = await scales.read(block, Math.ceil((first + count) / FP8_BLOCK) - block);
      const out = new Float32Array(count * columns);
      decodeFp8Rows(await open.read(name, first * columns, count * columns), own, columns, first % FP8_BLOCK, out);
      return out;
    },
  };
}

/** Two values a byte; the scales of 32 columns each are e8m0. */
function fp4Rows(open: Open, name: string, scale: string): WeightRows {
  const { shape } = open.tensors.get(name)!;
  const [rows = 0, packed = 0] = shape;
  const blocks = packed / 16;
  checkScale(open, scale, shape, [rows, blocks]);
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

function checkScale(open: Open, scale: string, weight: readonly number[], due: readonly number[]): void {
  const { shape, file } = open.tensors.get(scale)!;
  if (weight.length === 2 && shape.join() === due.join()) return;
  throw new FormatError(file, `must hold ${scale} as [${due.join(", ")}]`, { got: shape });
}
