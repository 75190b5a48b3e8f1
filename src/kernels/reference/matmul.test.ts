import { expect, test } from "vitest";
import { bf16, blank, f32, f64, i32, runKernel } from "../../../test/helpers/kernel-calls.ts";
import { createReferenceBackend } from "./backend.ts";

const backend = createReferenceBackend();
const one = { batch: 1, strideA: 0, strideB: 0, strideC: 0, accumulate: 0, compute: 0 };

/** A = [[1, 2, 3], [4, 5, 6]], B = [[1, 0], [2, 1], [0, 3]], so A·B = [[5, 11], [14, 23]]. */
const A = { plain: [1, 2, 3, 4, 5, 6], transposed: [1, 4, 2, 5, 3, 6] };
const B = { plain: [1, 0, 2, 1, 0, 3], transposed: [1, 2, 0, 0, 1, 3] };

test.each([
  [0, 0],
  [0, 1],
  [1, 0],
  [1, 1],
])("matmul reads A and B as stored (transA %i, transB %i)", (transA, transB) => {
  const { c } = runKernel(
    backend,
    "matmul",
    {
      a: f64(transA === 1 ? A.transposed : A.plain),
      b: f64(transB === 1 ? B.transposed : B.plain),
      c: f64([100, 100, 100, 100]),
    },
    { ...one, m: 2, n: 2, k: 3, transA, transB, lda: transA ? 2 : 3, ldb: transB ? 3 : 2, ldc: 2, accumulate: 1 },
  );
  expect([...c]).toEqual([105, 111, 114, 123]);
});

test("matmul steps through a batch and leaves what lies between rows and matrices alone", () => {
  const { c } = runKernel(
    backend,
    "matmul",
    { a: f64([1, 2, 3, 4]), b: f64([10]), c: f64(new Array(7).fill(-1)) },
    { ...one, m: 2, n: 1, k: 1, transA: 0, transB: 0, lda: 1, ldb: 1, ldc: 2, batch: 2, strideA: 2, strideC: 4 },
  );
  expect([...c]).toEqual([10, -1, 20, -1, 30, -1, 40]);
});

test("compute 1 rounds both factors to bf16 and neither products nor sums", () => {
  const product = (compute: number): number =>
    runKernel(
      backend,
      "matmul",
      { a: f32([1 + 2 ** -9, 2 ** -20]), b: f32([1 - 2 ** -10, 1]), c: blank("f32", 1) },
      { ...one, m: 1, n: 1, k: 2, transA: 0, transB: 0, lda: 2, ldb: 1, ldc: 1, compute },
    ).c[0]!;
  expect(product(1)).toBe(1 + 2 ** -20);
  expect(product(0)).toBe(Math.fround((1 + 2 ** -9) * (1 - 2 ** -10) + 2 ** -20));
});

test("matmul of no terms is 0", () => {
  const { c } = runKernel(
    backend,
    "matmul",
    { a: f32([]), b: f32([]), c: blank("f32", 2) },
    { ...one, m: 2, n: 1, k: 0, transA: 0, transB: 0, lda: 0, ldb: 1, ldc: 1 },
  );
  expect([...c]).toEqual([0, 0]);
});

test("groupedMatmul gives each row to its expert and leaves rows of no expert alone", () => {
  const { y } = runKernel(
    backend,
    "groupedMatmul",
    {
      x: f64([1, 2, 3, 4]),
      w: bf16([1, 0, 0, 1, 1, 1]),
      offsets: i32([0, 1, 1, 2]),
      rowIndex: i32([1, 0, 0]),
      y: f64([9, 9, 9]),
    },
    { experts: 3, rows: 3, xRows: 2, outDim: 1, inDim: 2, transW: 0, accumulate: 0, compute: 0 },
  );
  expect([...y]).toEqual([3, 3, 9]);
});

test("groupedMatmulBackwardW gives an expert without rows exactly 0, or leaves it as it is", () => {
  const run = (accumulate: number): number[] => [
    ...runKernel(
      backend,
      "groupedMatmulBackwardW",
      {
        x: f64([2, 3]),
        dy: f64([10]),
        offsets: i32([0, 0, 1]),
        xIndex: undefined,
        dyIndex: undefined,
        dw: f64([1, 1, 1, 1]),
      },
      { experts: 2, rows: 1, xRows: 1, dyRows: 1, outDim: 1, inDim: 2, accumulate, compute: 0 },
    ).dw,
  ];
  expect(run(0)).toEqual([0, 0, 20, 30]);
  expect(run(1)).toEqual([1, 1, 21, 31]);
});
