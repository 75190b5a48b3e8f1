import { expect, test } from "vitest";
import { blank, f32, i32, runKernel, stored } from "../../../test/helpers/kernel-calls.ts";
import { createReferenceBackend } from "./backend.ts";

const backend = createReferenceBackend();
const signed = (...values: number[]): Uint8Array => new Uint8Array(Int8Array.from(values).buffer);
/** e4m3 of 1, −2 and 0.5. */
const [ONE, MINUS_TWO, HALF] = [0x38, 0xc0, 0x30] as const;
const one = { transA: 0, batch: 1, strideA: 0, strideB: 0, strideC: 0, accumulate: 0, compute: 0 };

test("a view finds the scales of the whole matrix that it is a part of", () => {
  // Rows of 3, scales of 2 × 2: [[10, 100], [1000, 10000]]; the view is rows 1 and 2, columns 1 and 2.
  const { c } = runKernel(
    backend,
    "matmul",
    {
      a: f32([1, 1]),
      b: stored("i8", signed(5, 6, 7, 8, 9), 4),
      bScale: { ...f32([10, 100, 1000, 10000]), front: 0 },
      c: blank("f32", 2),
    },
    { ...one, m: 1, n: 2, k: 2, transB: 1, lda: 2, ldb: 3, ldc: 2, scaleRows: 2, scaleCols: 2 },
  );
  expect([...c]).toEqual([5 * 10 + 6 * 100, 8 * 1000 + 9 * 10000]);
});

test("rows that run over the end of a scaled row, and a batch that does not step by rows, are refused", () => {
  const call = (front: number, strideB: number): unknown =>
    runKernel(
      backend,
      "matmul",
      {
        a: f32([1, 1, 1, 1]),
        b: stored("i8", signed(1, 1, 1, 1, 1, 1, 1, 1), front),
        bScale: { ...f32([1, 1, 1, 1, 1]), front: 0 },
        c: blank("f32", 2),
      },
      {
        ...{ ...one, m: 1, n: 1, k: 2, transB: 1, lda: 2, ldb: 3, ldc: 1, scaleRows: 1, scaleCols: 3 },
        ...{ batch: 2, strideA: 2, strideB, strideC: 1 },
      },
    );
  call(1, 3);
  expect(() => call(2, 3)).toThrow(/matmul\.b has rows within those of the scaled matrix \(3\), got 2/);
  expect(() => call(1, 2)).toThrow(/matmul\.strideB is whole rows of 3/);
});

test("experts apart are read by their handles, and only those with rows", () => {
  const matrices = [stored("i8", signed(1, 2)), stored("i8", signed(9)), stored("i8", signed(3, 4))];
  const scales = [f32([10]), f32([]), f32([100])];
  const { y } = runKernel(
    backend,
    "groupedMatmul",
    {
      x: f32([1, 1, 1, 2]),
      w: { dtype: "i8", values: [], list: matrices },
      offsets: i32([0, 1, 1, 2]),
      y: blank("f32", 2),
      wScale: { dtype: "f32", values: [], list: scales },
    },
    {
      ...{ experts: 3, rows: 2, xRows: 2, outDim: 1, inDim: 2, transW: 0, accumulate: 0, compute: 0 },
      ...{ scaleRows: 1, scaleCols: 2, list: 1 },
    },
  );
  expect([...y]).toEqual([30, 1100]);
});

test("compute 2 rounds the left factor to e4m3 by groups of 128 where weights are e4m3, and to bf16 elsewhere", () => {
  const product = (x: readonly number[], bytes: readonly number[]): number =>
    runKernel(
      backend,
      "matmul",
      { a: f32(x), b: stored("f8_e4m3", Uint8Array.from(bytes)), c: blank("f32", 1) },
      { ...one, m: 1, n: 1, k: x.length, transB: 1, lda: x.length, ldb: x.length, ldc: 1, compute: 2 },
    ).c[0]!;
  // 448 makes the scale 1, where 17 and 19 lie between 16, 18 and 20.
  expect(product([448, 17, 19], [HALF, ONE, MINUS_TWO])).toBe(224 + 16 - 40);
  // The second group has a scale of its own, in which 17 is the largest and exact.
  const alone = [448, ...new Array<number>(127).fill(0), 17];
  expect(product(alone, new Array<number>(129).fill(ONE))).toBe(448 + 17);
  expect(product([0, 0], [ONE, ONE])).toBe(0);
  const { c } = runKernel(
    backend,
    "matmul",
    { a: f32([1 + 2 ** -9]), b: f32([1]), c: blank("f32", 1) },
    { ...one, m: 1, n: 1, k: 1, transB: 1, lda: 1, ldb: 1, ldc: 1, compute: 2 },
  );
  expect([...c]).toEqual([1]);
});
