import { expect, test } from "vitest";
import { bf16, blank, f32, f64, i32, runKernel } from "../../../test/helpers/kernel-calls.ts";
import { createReferenceBackend } from "./backend.ts";

const backend = createReferenceBackend();

test("fill writes a value and axpy adds a scaled vector", () => {
  expect(runKernel(backend, "fill", { y: blank("f32", 3) }, { n: 3, value: 0.1 }).y).toEqual(
    new Float64Array(3).fill(Math.fround(0.1)),
  );
  const { y } = runKernel(backend, "axpy", { x: f32([1, 2]), y: f32([10, 20]) }, { n: 2, scale: -2 });
  expect([...y]).toEqual([8, 16]);
  const sum = runKernel(backend, "add", { a: f32([1, 2]), b: f32([10, 20]), y: blank("f32", 2) }, { n: 2 });
  expect([...sum.y]).toEqual([11, 22]);
});

test("copy2d converts to bf16 with ties to even and leaves the columns between rows alone", () => {
  const tie = 1 + 2 ** -8;
  const { y } = runKernel(
    backend,
    "copy2d",
    { x: f32([tie, 3, tie + 2 ** -7, 1e-40]), y: bf16([7, 7, 7, 7, 7]) },
    { rows: 2, cols: 2, xStride: 2, yStride: 3, accumulate: 0 },
  );
  expect([...y]).toEqual([1, 3, 7, 1 + 2 ** -6, y[4]!]);
  expect(Math.abs(y[4]! - 1e-40)).toBeLessThanOrEqual(2 ** -134);
});

test("copy2d adds when it accumulates", () => {
  const { y } = runKernel(
    backend,
    "copy2d",
    { x: bf16([1, 2, 3, 4]), y: f64([10, 10, 10, 10]) },
    { rows: 2, cols: 2, xStride: 2, yStride: 2, accumulate: 1 },
  );
  expect([...y]).toEqual([11, 12, 13, 14]);
});

test("sum adds up in float64, where float32 would lose the small terms", () => {
  const x = f32([2 ** 25, ...new Array(8).fill(1), -(2 ** 25)]);
  expect(runKernel(backend, "sum", { x, y: f32([5]) }, { n: 10, scale: 0.5, accumulate: 1 }).y[0]).toBe(9);
  expect(runKernel(backend, "sum", { x, y: blank("f32", 1) }, { n: 10, scale: 1, accumulate: 0 }).y[0]).toBe(8);
});

test("sumSquares shows NaN and infinity", () => {
  const squares = (x: number[]): number =>
    runKernel(backend, "sumSquares", { x: f32(x), y: blank("f32", 1) }, { n: x.length }).y[0]!;
  expect(squares([3, 4])).toBe(25);
  expect(squares([1, NaN])).toBeNaN();
  expect(squares([1, -Infinity])).toBe(Infinity);
});

test("gatherRows and embedding pick rows and refuse a row that does not exist", () => {
  const x = f32([0, 1, 10, 11, 20, 21]);
  const gather = (index: number[]): Float64Array =>
    runKernel(
      backend,
      "gatherRows",
      { x, index: i32(index), y: blank("f32", 2 * index.length) },
      { rows: index.length, d: 2, xRows: 3 },
    ).y;
  expect([...gather([2, 0])]).toEqual([20, 21, 0, 1]);
  expect(() => gather([3])).toThrowErrorMatchingInlineSnapshot(
    `[InternalError: invariant: gatherRows.index lies in [0, 3), got 3; this is a bug in Fathom]`,
  );
  const { y } = runKernel(
    backend,
    "embedding",
    { ids: i32([1]), table: bf16([0, 1, 10, 11]), y: blank("f32", 2) },
    { n: 1, d: 2, vocab: 2 },
  );
  expect([...y]).toEqual([10, 11]);
});

test("randomNormal makes standard normal numbers of one key, whatever their count", () => {
  const draw = (n: number, keyLo: number): Float64Array =>
    runKernel(backend, "randomNormal", { y: blank("f64", n) }, { n, std: 2, keyLo, keyHi: 9 }).y;
  const n = 40_000;
  const values = draw(n, 1);
  expect(draw(7, 1)).toEqual(values.slice(0, 7));
  expect(draw(7, 2)).not.toEqual(values.slice(0, 7));
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const variance = values.reduce((sum, value) => sum + value ** 2, 0) / n;
  // Five standard errors: sd(mean) = 2 / √n, sd(variance) = 4 · √(2 / n).
  expect(Math.abs(mean)).toBeLessThan((5 * 2) / Math.sqrt(n));
  expect(Math.abs(variance - 4)).toBeLessThan(5 * 4 * Math.sqrt(2 / n));
});

test("randomNormal turns the first Philox block into four numbers by Box–Muller", () => {
  const words = [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8].map((word) => (word + 0.5) / 2 ** 32);
  const pair = (u0: number, u1: number): number[] => {
    const radius = Math.sqrt(-2 * Math.log(u0));
    return [radius * Math.cos(2 * Math.PI * u1), radius * Math.sin(2 * Math.PI * u1)];
  };
  const { y } = runKernel(backend, "randomNormal", { y: blank("f64", 4) }, { n: 4, std: 1, keyLo: 0, keyHi: 0 });
  expect([...y]).toEqual([...pair(words[0]!, words[1]!), ...pair(words[2]!, words[3]!)]);
});

test("siluMul is silu(gate) · up · row scale", () => {
  const { y } = runKernel(
    backend,
    "siluMul",
    { gate: f64([0, Math.log(3)]), up: f64([5, 2]), scale: f64([10]), y: blank("f64", 2) },
    { n: 1, d: 2 },
  );
  expect(y[0]).toBe(0);
  expect(y[1]).toBeCloseTo(Math.log(3) * 0.75 * 2 * 10, 12);
});
