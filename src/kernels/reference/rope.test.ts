import { expect, test } from "vitest";
import { f64, i32, runKernel } from "../../../test/helpers/kernel-calls.ts";
import { createReferenceBackend } from "./backend.ts";

/** Position 1 turns the first pair by 90° and the second by 180°. */
const table = f64([1, 1, 0, 0, 0, -1, 1, 0]);
const shape = { n: 1, heads: 1, headDim: 5, ropeDim: 4, xStride: 5, yStride: 5, maxPos: 2 };

function rotate(interleave: number, inverse: number, accumulate: number): number[] {
  const y = f64(new Array(5).fill(100));
  const operands = { x: f64([7, 1, 2, 3, 4]), table, positions: i32([1]), y };
  return [...runKernel(createReferenceBackend(), "rope", operands, { ...shape, interleave, inverse, accumulate }).y];
}

test("interleaved rope turns neighbours, the other layout turns halves, and the first values are copied", () => {
  expect(rotate(1, 0, 0)).toEqual([7, -2, 1, -3, -4]);
  expect(rotate(0, 0, 0)).toEqual([7, -3, -2, 1, -4]);
});

test("the inverse turns back and accumulation adds", () => {
  expect(rotate(1, 1, 0)).toEqual([7, 2, -1, -3, -4]);
  expect(rotate(0, 0, 1)).toEqual([107, 97, 98, 101, 96]);
});
