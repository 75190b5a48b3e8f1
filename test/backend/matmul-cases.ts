/** Cases of matrix products: every transpose, strides wider than rows, batches, experts with and without rows. */

import type { Rng } from "../../src/core/index.ts";
import type { KernelName } from "../../src/kernels/index.ts";
import { bf16, blank, f32, i32, uniform, type Field } from "../helpers/kernel-calls.ts";
import { indices, LENGTHS, linear, startsOf, type Case, type Cases } from "./case.ts";

interface Shape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch?: number;
}

const EDGES: readonly Shape[] = LENGTHS.flatMap((length) => [
  { m: length, n: 5, k: 7 },
  { m: 6, n: length, k: 3 },
  { m: 1, n: 9, k: length },
  { m: length, n: length, k: length },
]);
/** Beyond blocks of k, of rows and of columns; nothing at all; batches. */
const LARGER: readonly Shape[] = [
  { m: 0, n: 3, k: 2 },
  { m: 4, n: 0, k: 2 },
  { m: 4, n: 3, k: 2, batch: 0 },
  { m: 3, n: 20, k: 1030 },
  { m: 1, n: 600, k: 300 },
  { m: 150, n: 270, k: 280 },
  { m: 4, n: 3, k: 0 },
  { m: 17, n: 5, k: 9, batch: 3 },
  { m: 33, n: 64, k: 32, batch: 2 },
];
const FORMS = [0, 1].flatMap((compute) =>
  [0, 1].flatMap((transA) => [0, 1].map((transB) => ({ compute, transA, transB }))),
);

const familyOf = (compute: number): "matmulBf16" | "matmulF32" => (compute === 1 ? "matmulBf16" : "matmulF32");

function* matmul(rng: Rng): Iterable<Case<"matmul">> {
  let turn = 0;
  for (const { m, n, k, batch = 1 } of [...EDGES, ...LARGER]) {
    for (const { compute, transA, transB } of FORMS) {
      turn++;
      const pad = turn % 3;
      const [aRows, aCols] = transA === 1 ? [k, m] : [m, k];
      const [bRows, bCols] = transB === 1 ? [n, k] : [k, n];
      const [lda, ldb, ldc] = [aCols + pad, bCols + 2 * pad, n + pad];
      const [strideA, strideB, strideC] = [aRows * lda + pad, bRows * ldb, m * ldc + 1];
      const accumulate = turn % 2;
      const numbers = {
        ...{ m, n, k, transA, transB, lda, ldb, ldc, batch, strideA, strideB, strideC, accumulate, compute },
      };
      const types: ((values: Float64Array) => Field)[] = [f32, bf16];
      const fields = {
        a: types[Math.floor(turn / 8) % 2]!(uniform(rng, batch * strideA)),
        b: types[Math.floor(turn / 16) % 2]!(uniform(rng, batch * strideB)),
        c: f32(uniform(rng, batch * strideC)),
      };
      const title = `${fields.a.dtype} · ${fields.b.dtype}, ${JSON.stringify(numbers)}`;
      yield linear("matmul", { title, fields, numbers }, "c", { family: familyOf(compute), terms: k + 1 });
    }
  }
  yield* specialMatmul(rng);
}

/** NaN and infinity stay in the rows and columns that they belong to; denormals count as zero at most in bf16. */
function* specialMatmul(rng: Rng): Iterable<Case<"matmul">> {
  const [m, n, k] = [33, 31, 37];
  for (const { compute, transA, transB } of FORMS) {
    const [lda, ldb] = [transA === 1 ? m : k, transB === 1 ? k : n];
    const [a, b] = [uniform(rng, m * k), uniform(rng, k * n)];
    const setA = (i: number, p: number, value: number): number => (a[transA === 1 ? p * lda + i : i * lda + p] = value);
    setA(0, 5, NaN);
    setA(16, 36, Infinity);
    setA(20, 0, -Infinity);
    for (let p = 0; p < k; p++) setA(32, p, 1e-40);
    b[transB === 1 ? 3 * ldb + 7 : 7 * ldb + 3] = NaN;
    const test = {
      title: `special values, compute ${compute}, transA ${transA}, transB ${transB}`,
      fields: { a: f32(a), b: f32(b), c: blank("f32", m * n) },
      numbers: {
        ...{ m, n, k, transA, transB, lda, ldb, ldc: n, batch: 1, strideA: 0, strideB: 0, strideC: 0 },
        ...{ accumulate: 0, compute },
      },
    };
    yield linear("matmul", test, "c", { family: familyOf(compute), terms: k });
  }
}

/** Rows of each expert. */
const LOADS = [[0, 0], [1], [0, 1, 0], [3, 0, 17, 33, 0], [16, 16], [1, 65, 2, 0, 7], [130, 0, 128]];
const DIMS = [
  { outDim: 1, inDim: 1 },
  { outDim: 3, inDim: 7 },
  { outDim: 17, inDim: 31 },
  { outDim: 33, inDim: 65 },
  { outDim: 64, inDim: 32 },
  { outDim: 130, inDim: 48 },
];

function* groupedMatmul(rng: Rng): Iterable<Case<"groupedMatmul">> {
  let turn = 0;
  for (const load of LOADS) {
    for (const { outDim, inDim } of DIMS) {
      for (const { compute, transA: transW, transB: indexed } of FORMS) {
        turn++;
        const offsets = startsOf(load);
        // The last two rows belong to no expert and stay as they are.
        const rows = offsets.at(-1)! + 2;
        const [experts, xRows, accumulate] = [load.length, indexed === 1 ? 11 : rows, turn % 2];
        const [width, k] = transW === 1 ? [inDim, outDim] : [outDim, inDim];
        const test = {
          title: `rows ${load.join(", ")}; ${outDim} × ${inDim}; transW ${transW}, indexed ${indexed}, compute ${compute}`,
          fields: {
            x: f32(uniform(rng, xRows * k)),
            w: (turn % 3 === 0 ? bf16 : f32)(uniform(rng, experts * outDim * inDim)),
            offsets: i32(offsets),
            rowIndex: indexed === 1 ? i32(indices(rng, rows, xRows)) : undefined,
            y: f32(uniform(rng, rows * width)),
          },
          numbers: { experts, rows, xRows, outDim, inDim, transW, accumulate, compute },
        };
        yield linear("groupedMatmul", test, "y", { family: familyOf(compute), terms: k + 1 });
      }
    }
  }
}

function* groupedMatmulBackwardW(rng: Rng): Iterable<Case<"groupedMatmulBackwardW">> {
  let turn = 0;
  for (const load of LOADS) {
    for (const { outDim, inDim } of DIMS) {
      for (const { compute, transA: xIndexed, transB: dyIndexed } of FORMS) {
        turn++;
        const offsets = startsOf(load);
        const rows = offsets.at(-1)!;
        const [experts, accumulate] = [load.length, turn % 2];
        const [xRows, dyRows] = [xIndexed === 1 ? 11 : rows, dyIndexed === 1 ? 9 : rows];
        const test = {
          title: `rows ${load.join(", ")}; ${outDim} × ${inDim}; indexed ${xIndexed}${dyIndexed}, compute ${compute}`,
          fields: {
            x: f32(uniform(rng, xRows * inDim)),
            dy: f32(uniform(rng, dyRows * outDim)),
            offsets: i32(offsets),
            xIndex: xIndexed === 1 ? i32(indices(rng, rows, xRows)) : undefined,
            dyIndex: dyIndexed === 1 ? i32(indices(rng, rows, dyRows)) : undefined,
            dw: f32(uniform(rng, experts * outDim * inDim)),
          },
          numbers: { experts, rows, xRows, dyRows, outDim, inDim, accumulate, compute },
        };
        const terms = Math.max(...load) + 1;
        yield linear("groupedMatmulBackwardW", test, "dw", { family: familyOf(compute), terms });
      }
    }
  }
}

export const MATMUL_CASES = { matmul, groupedMatmul, groupedMatmulBackwardW } satisfies {
  [K in KernelName]?: Cases<K>;
};
