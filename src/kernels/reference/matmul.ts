/** Matrix products. Each packs its factors into dense float64 matrices and multiplies those. */

import type { DType } from "../../core/dtype.ts";
import { invariant } from "../../core/errors.ts";
import { E4M3_MAX, e4m3Table, toE4m3Bits } from "../../core/float-formats.ts";
import { roundToBf16, spanOf, type Call } from "./call.ts";
import type { Floats } from "./stored.ts";

/** How the values of a factor are rounded before they are multiplied. */
type Rounding = "none" | "bf16" | "e4m3";

/** What `compute` asks of the left and of the right factor, whose type is given. */
function roundings(compute: number, right: DType): { readonly left: Rounding; readonly right: Rounding } {
  if (compute === 0) return { left: "none", right: "none" };
  if (compute === 2 && right === "f8_e4m3") return { left: "e4m3", right: "none" };
  return { left: "bf16", right: "bf16" };
}

/** Values that share a scale when they are rounded to e4m3. */
const GROUP = 128;

/** A matrix of rows of `k` values, rounded; it may be the same memory. */
function rounded(matrix: Float64Array, k: number, rounding: Rounding): Float64Array {
  if (rounding === "bf16") return matrix.map(roundToBf16);
  if (rounding === "none" || k === 0) return matrix;
  for (let row = 0; row < matrix.length; row += k) {
    for (let g = 0; g < k; g += GROUP) roundGroup(matrix.subarray(row + g, row + Math.min(k, g + GROUP)));
  }
  return matrix;
}

/** Rounds to e4m3 · max|x| / 448, in the arithmetic of f32; NaN does not count for the maximum. */
function roundGroup(group: Float64Array): void {
  const largest = group.reduce((most, value) => (Math.abs(value) > most ? Math.abs(value) : most), 0);
  const scale = Math.fround(Math.fround(largest) / E4M3_MAX);
  if (scale === 0) return;
  const table = e4m3Table();
  for (const [i, value] of group.entries())
    group[i] = Math.fround(table[toE4m3Bits(Math.fround(value) / scale)]! * scale);
}

/** A dense float64 matrix whose element (i, j) is source[offset + i·rowStride + j·colStride]. */
function pack(
  source: Floats | Float64Array,
  { offset = 0, rows, cols, rowStride, colStride }: PackShape,
): Float64Array {
  const packed = new Float64Array(rows * cols);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < cols; j++) packed[i * cols + j] = source[offset + i * rowStride + j * colStride]!;
  }
  return packed;
}

interface PackShape {
  readonly offset?: number;
  readonly rows: number;
  readonly cols: number;
  readonly rowStride: number;
  readonly colStride: number;
}

/** The rows [start, end) of a matrix `width` wide, each read through `index` when given. */
function packRows(
  x: Floats,
  { index, start, end, width }: { index: Int32Array | undefined; start: number; end: number; width: number },
): Float64Array {
  const packed = new Float64Array((end - start) * width);
  for (let r = start; r < end; r++) {
    const from = (index === undefined ? r : index[r]!) * width;
    packed.set(x.subarray(from, from + width), (r - start) * width);
  }
  return packed;
}

interface Product {
  readonly a: Float64Array;
  readonly b: Float64Array;
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/** c[offset + i·ldc + j] (+)= Σ_p a[i, p] · b[p, j]. Four terms at a time halve the time spent on the sums. */
function multiply({ a, b, m, n, k }: Product, c: Floats, offset: number, ldc: number, accumulate: boolean): void {
  const row = new Float64Array(n);
  for (let i = 0; i < m; i++) {
    row.fill(0);
    let p = 0;
    for (; p + 4 <= k; p += 4) {
      const at = i * k + p;
      const [a0, a1, a2, a3] = [a[at]!, a[at + 1]!, a[at + 2]!, a[at + 3]!];
      const b0 = p * n;
      const [b1, b2, b3] = [b0 + n, b0 + 2 * n, b0 + 3 * n];
      for (let j = 0; j < n; j++) row[j]! += a0 * b[b0 + j]! + a1 * b[b1 + j]! + a2 * b[b2 + j]! + a3 * b[b3 + j]!;
    }
    for (; p < k; p++) {
      const factor = a[i * k + p]!;
      for (let j = 0; j < n; j++) row[j]! += factor * b[p * n + j]!;
    }
    const to = offset + i * ldc;
    for (let j = 0; j < n; j++) c[to + j] = (accumulate ? c[to + j]! : 0) + row[j]!;
  }
}

/** C (+)= opA(A) · opB(B) for each matrix of a batch. */
export function matmul(call: Call<"matmul">): void {
  const [m, n, k] = [call.count("m"), call.count("n"), call.count("k")];
  const [lda, ldb, ldc] = [call.count("lda"), call.count("ldb"), call.count("ldc")];
  const [strideA, strideB, strideC] = [call.count("strideA"), call.count("strideB"), call.count("strideC")];
  const [transA, transB] = [call.flag("transA"), call.flag("transB")];
  const batch = call.count("batch");
  const rounding = roundings(call.count("compute"), call.dtype("b"));
  const a = call.floats("a", spanOf(batch, transA ? spanOf(k, m, lda) : spanOf(m, k, lda), strideA));
  const [bRows, bCols] = transB ? [n, k] : [k, n];
  const bSpan = spanOf(bRows, bCols, ldb);
  const b = call.weights("b", "bScale", { length: spanOf(batch, bSpan, strideB), width: ldb, columns: bCols });
  const inRow = !call.has("bScale") || batch < 2 || strideB % ldb === 0;
  invariant(inRow, `matmul.strideB is whole rows of ${ldb} where there are scales, got ${strideB}`);
  const c = call.floats("c", spanOf(batch, spanOf(m, n, ldc), strideC));
  const [aRow, aCol] = transA ? [1, lda] : [lda, 1];
  const [bRow, bCol] = transB ? [1, ldb] : [ldb, 1];
  for (let i = 0; i < batch; i++) {
    const aMatrix = pack(a, { offset: i * strideA, rows: m, cols: k, rowStride: aRow, colStride: aCol });
    const bMatrix = pack(b(i * strideB, bSpan), { rows: k, cols: n, rowStride: bRow, colStride: bCol });
    const factors = { a: rounded(aMatrix, k, rounding.left), b: rounded(bMatrix, n, rounding.right) };
    multiply({ ...factors, m, n, k }, c, i * strideC, ldc, call.flag("accumulate"));
  }
}

/** y[r, :] (+)= W[e] · x[row(r), :], or W[e]ᵀ · x[row(r), :], for the rows r of each expert e. */
export function groupedMatmul(call: Call<"groupedMatmul">): void {
  const experts = call.count("experts");
  const rows = call.count("rows");
  const [outDim, inDim] = [call.count("outDim"), call.count("inDim")];
  const transW = call.flag("transW");
  const rounding = roundings(call.count("compute"), call.dtype("w"));
  const [k, n] = transW ? [outDim, inDim] : [inDim, outDim];
  const [rowStride, colStride] = transW ? [inDim, 1] : [1, inDim];
  const xRows = call.count("xRows");
  const index = call.optionalIndices("rowIndex", rows, xRows);
  const x = call.floats("x", xRows * k);
  invariant(index !== undefined || rows <= xRows, `groupedMatmul.x has ${rows} rows, got ${xRows}`);
  const matrix = expertMatrices(call, experts, outDim, inDim);
  const offsets = call.starts("offsets", experts, rows);
  const y = call.floats("y", rows * n);
  for (let e = 0; e < experts; e++) {
    const [start, end] = [offsets[e]!, offsets[e + 1]!];
    if (start === end) continue;
    const a = packRows(x, { index, start, end, width: k });
    const b = pack(matrix(e), { rows: k, cols: n, rowStride, colStride });
    const factors = { a: rounded(a, k, rounding.left), b: rounded(b, n, rounding.right) };
    multiply({ ...factors, m: end - start, n, k }, y, start * n, n, call.flag("accumulate"));
  }
}

/** What reads the matrix [outDim, inDim] of an expert: a part of one stack, or a buffer of its own. */
function expertMatrices(
  call: Call<"groupedMatmul">,
  experts: number,
  outDim: number,
  inDim: number,
): (e: number) => Floats {
  const size = outDim * inDim;
  const shape = { length: size, width: inDim, columns: inDim };
  if (call.flag("list")) {
    const matrix = call.listedWeights("w", "wScale", experts, shape);
    return (e) => matrix(e)(0, size);
  }
  const stack = call.weights("w", "wScale", { ...shape, length: experts * size });
  return (e) => stack(e * size, size);
}

/** dW[e] (+)= Σ_r dy[dyRow(r), :]ᵀ · x[xRow(r), :] over the rows r of expert e. */
export function groupedMatmulBackwardW(call: Call<"groupedMatmulBackwardW">): void {
  const experts = call.count("experts");
  const rows = call.count("rows");
  const [outDim, inDim] = [call.count("outDim"), call.count("inDim")];
  const [xRows, dyRows] = [call.count("xRows"), call.count("dyRows")];
  const { left } = roundings(call.count("compute"), "bf16");
  const xIndex = call.optionalIndices("xIndex", rows, xRows);
  const dyIndex = call.optionalIndices("dyIndex", rows, dyRows);
  const x = call.floats("x", xRows * inDim);
  const dy = call.floats("dy", dyRows * outDim);
  invariant(xIndex !== undefined || rows <= xRows, `groupedMatmulBackwardW.x has ${rows} rows, got ${xRows}`);
  invariant(dyIndex !== undefined || rows <= dyRows, `groupedMatmulBackwardW.dy has ${rows} rows, got ${dyRows}`);
  const offsets = call.starts("offsets", experts, rows);
  const dw = call.floats("dw", experts * outDim * inDim);
  for (let e = 0; e < experts; e++) {
    const [start, end] = [offsets[e]!, offsets[e + 1]!];
    const k = end - start;
    const dyE = packRows(dy, { index: dyIndex, start, end, width: outDim });
    const a = rounded(pack(dyE, { rows: outDim, cols: k, rowStride: 1, colStride: outDim }), k, left);
    const b = rounded(packRows(x, { index: xIndex, start, end, width: inDim }), inDim, left);
    multiply({ a, b, m: outDim, n: inDim, k }, dw, e * outDim * inDim, inDim, call.flag("accumulate"));
  }
}
