/** Matrix products. Each packs its factors into dense float64 matrices and multiplies those. */

import { invariant } from "../../core/errors.ts";
import { roundToBf16, spanOf, type Call, type Floats } from "./call.ts";

/** A dense float64 matrix whose element (i, j) is source[offset + i·rowStride + j·colStride], rounded when asked. */
function pack(
  source: Floats | Float64Array,
  { offset = 0, rows, cols, rowStride, colStride }: PackShape,
  toBf16: boolean,
): Float64Array {
  const packed = new Float64Array(rows * cols);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < cols; j++) {
      const value = source[offset + i * rowStride + j * colStride]!;
      packed[i * cols + j] = toBf16 ? roundToBf16(value) : value;
    }
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
  toBf16: boolean,
): Float64Array {
  const packed = new Float64Array((end - start) * width);
  for (let r = start; r < end; r++) {
    const from = (index === undefined ? r : index[r]!) * width;
    for (let c = 0; c < width; c++) {
      packed[(r - start) * width + c] = toBf16 ? roundToBf16(x[from + c]!) : x[from + c]!;
    }
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
  const toBf16 = call.flag("compute");
  const a = call.floats("a", spanOf(batch, transA ? spanOf(k, m, lda) : spanOf(m, k, lda), strideA));
  const b = call.floats("b", spanOf(batch, transB ? spanOf(n, k, ldb) : spanOf(k, n, ldb), strideB));
  const c = call.floats("c", spanOf(batch, spanOf(m, n, ldc), strideC));
  const [aRow, aCol] = transA ? [1, lda] : [lda, 1];
  const [bRow, bCol] = transB ? [1, ldb] : [ldb, 1];
  for (let i = 0; i < batch; i++) {
    const aMatrix = pack(a, { offset: i * strideA, rows: m, cols: k, rowStride: aRow, colStride: aCol }, toBf16);
    const bMatrix = pack(b, { offset: i * strideB, rows: k, cols: n, rowStride: bRow, colStride: bCol }, toBf16);
    multiply({ a: aMatrix, b: bMatrix, m, n, k }, c, i * strideC, ldc, call.flag("accumulate"));
  }
}

/** y[r, :] (+)= W[e] · x[row(r), :], or W[e]ᵀ · x[row(r), :], for the rows r of each expert e. */
export function groupedMatmul(call: Call<"groupedMatmul">): void {
  const experts = call.count("experts");
  const rows = call.count("rows");
  const [outDim, inDim] = [call.count("outDim"), call.count("inDim")];
  const transW = call.flag("transW");
  const toBf16 = call.flag("compute");
  const [k, n] = transW ? [outDim, inDim] : [inDim, outDim];
  const [rowStride, colStride] = transW ? [inDim, 1] : [1, inDim];
  const xRows = call.count("xRows");
  const index = call.optionalIndices("rowIndex", rows, xRows);
  const x = call.floats("x", xRows * k);
  invariant(index !== undefined || rows <= xRows, `groupedMatmul.x has ${rows} rows, got ${xRows}`);
  const w = call.floats("w", experts * outDim * inDim);
  const offsets = call.starts("offsets", experts, rows);
  const y = call.floats("y", rows * n);
  for (let e = 0; e < experts; e++) {
    const [start, end] = [offsets[e]!, offsets[e + 1]!];
    if (start === end) continue;
    const a = packRows(x, { index, start, end, width: k }, toBf16);
    const b = pack(w, { offset: e * outDim * inDim, rows: k, cols: n, rowStride, colStride }, toBf16);
    multiply({ a, b, m: end - start, n, k }, y, start * n, n, call.flag("accumulate"));
  }
}

/** dW[e] (+)= Σ_r dy[dyRow(r), :]ᵀ · x[xRow(r), :] over the rows r of expert e. */
export function groupedMatmulBackwardW(call: Call<"groupedMatmulBackwardW">): void {
  const experts = call.count("experts");
  const rows = call.count("rows");
  const [outDim, inDim] = [call.count("outDim"), call.count("inDim")];
  const [xRows, dyRows] = [call.count("xRows"), call.count("dyRows")];
  const toBf16 = call.flag("compute");
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
    const dyE = packRows(dy, { index: dyIndex, start, end, width: outDim }, toBf16);
    const a = pack(dyE, { rows: outDim, cols: k, rowStride: 1, colStride: outDim }, false);
    const b = packRows(x, { index: xIndex, start, end, width: inDim }, toBf16);
    multiply({ a, b, m: outDim, n: inDim, k }, dw, e * outDim * inDim, inDim, call.flag("accumulate"));
  }
}
