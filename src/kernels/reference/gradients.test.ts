/** Every backward kernel against central differences of its forward kernel, in float64. */

import { expect, test } from "vitest";
import { blank, f64, i32, runKernel, uniform, type Field, type Fields } from "../../../test/helpers/kernel-calls.ts";
import { Rng } from "../../core/rng.ts";
import { createReferenceBackend } from "./backend.ts";

const backend = createReferenceBackend();

/** Balances the truncation error of order h² and the rounding error of order 2⁻⁵³ / h. */
const STEP = 1e-5;
const TOLERANCE = 1e-8;

const dot = (a: ArrayLike<number>, b: Float64Array): number => b.reduce((sum, value, i) => sum + value * a[i]!, 0);

/** Compares `gradient` with the slope of `loss` at `x` in every coordinate. */
function expectGradient(gradient: Float64Array, x: Float64Array, loss: (x: Float64Array) => number): void {
  for (const [i, value] of x.entries()) {
    const slope = (loss(x.with(i, value + STEP)) - loss(x.with(i, value - STEP))) / (2 * STEP);
    const error = Math.abs(gradient[i]! - slope);
    expect(error, `index ${i}: got ${gradient[i]}, slope ${slope}`).toBeLessThan(TOLERANCE * (1 + Math.abs(slope)));
  }
}

test("embeddingBackward sums the rows of a repeated token and adds to what is there", () => {
  const rng = new Rng(1, "embedding");
  const [n, d, vocab] = [4, 3, 5];
  const ids = i32([2, 0, 2, 4]);
  const table = uniform(rng, vocab * d);
  const dy = uniform(rng, n * d);
  const loss = (x: Float64Array): number =>
    dot(runKernel(backend, "embedding", { ids, table: f64(x), y: blank("f64", n * d) }, { n, d, vocab }).y, dy);
  const backward = (dTable: Float64Array, accumulate: number): Float64Array =>
    runKernel(backend, "embeddingBackward", { ids, dy: f64(dy), dTable: f64(dTable) }, { n, d, vocab, accumulate })
      .dTable;
  const gradient = backward(new Float64Array(vocab * d).fill(NaN), 0);
  expectGradient(gradient, table, loss);
  const before = uniform(rng, vocab * d);
  expect(backward(before, 1)).toEqual(before.map((value, i) => value + gradient[i]!));
});

test("rmsNormBackward gives the gradients of x and w, through row strides", () => {
  const rng = new Rng(2, "norm");
  const [n, d, xStride, dxStride, eps] = [3, 5, 7, 6, 0.1];
  const x = uniform(rng, n * xStride);
  const w = uniform(rng, d);
  const dy = uniform(rng, n * d);
  const forward = (xValue: Float64Array, wValue: Float64Array): Record<"y" | "rstd", Float64Array> =>
    runKernel(
      backend,
      "rmsNorm",
      { x: f64(xValue), w: f64(wValue), y: blank("f64", n * d), rstd: blank("f64", n) },
      { n, d, xStride, eps },
    );
  const before = uniform(rng, n * dxStride);
  const beforeW = uniform(rng, d);
  const { dx, dw } = runKernel(
    backend,
    "rmsNormBackward",
    { x: f64(x), w: f64(w), rstd: f64(forward(x, w).rstd), dy: f64(dy), dx: f64(before), dw: f64(beforeW) },
    { n, d, xStride, dxStride, accumulateX: 1, accumulateW: 1 },
  );
  const dxDense = new Float64Array(n * xStride);
  for (let r = 0; r < n; r++) {
    for (let c = 0; c < d; c++) dxDense[r * xStride + c] = dx[r * dxStride + c]! - before[r * dxStride + c]!;
    if (r < n - 1) expect(dx[r * dxStride + d]).toBe(before[r * dxStride + d]);
  }
  expectGradient(dxDense, x, (value) => dot(forward(value, w).y, dy));
  expectGradient(
    dw.map((value, c) => value - beforeW[c]!),
    w,
    (value) => dot(forward(x, value).y, dy),
  );
});

test("the gradients of a matrix product are matrix products", () => {
  const rng = new Rng(3, "matmul");
  const [m, n, k] = [3, 4, 5];
  const a = uniform(rng, m * k);
  const b = uniform(rng, n * k);
  const dc = uniform(rng, m * n);
  const rest = { batch: 1, strideA: 0, strideB: 0, strideC: 0, accumulate: 0, compute: 0 };
  const forward = (aValue: Float64Array, bValue: Float64Array): Float64Array =>
    runKernel(
      backend,
      "matmul",
      { a: f64(aValue), b: f64(bValue), c: blank("f64", m * n) },
      { m, n, k, transA: 0, transB: 1, lda: k, ldb: k, ldc: n, ...rest },
    ).c;
  const da = runKernel(
    backend,
    "matmul",
    { a: f64(dc), b: f64(b), c: blank("f64", m * k) },
    { m, n: k, k: n, transA: 0, transB: 0, lda: n, ldb: k, ldc: k, ...rest },
  ).c;
  const db = runKernel(
    backend,
    "matmul",
    { a: f64(dc), b: f64(a), c: blank("f64", n * k) },
    { m: n, n: k, k: m, transA: 1, transB: 0, lda: n, ldb: k, ldc: k, ...rest },
  ).c;
  expectGradient(da, a, (value) => dot(forward(value, b), dc));
  expectGradient(db, b, (value) => dot(forward(a, value), dc));
});

test("groupedMatmul with transW and groupedMatmulBackwardW give the gradients of expert products", () => {
  const rng = new Rng(4, "grouped");
  const [experts, rows, xRows, outDim, inDim] = [3, 5, 4, 2, 3];
  const offsets = i32([0, 2, 2, 5]);
  const rowIndex = [3, 0, 1, 3, 2];
  const x = uniform(rng, xRows * inDim);
  const w = uniform(rng, experts * outDim * inDim);
  const dy = uniform(rng, rows * outDim);
  const sizes = { experts, rows, xRows, outDim, inDim, accumulate: 0, compute: 0 };
  const forward = (xValue: Float64Array, wValue: Float64Array): Float64Array =>
    runKernel(
      backend,
      "groupedMatmul",
      { x: f64(xValue), w: f64(wValue), offsets, rowIndex: i32(rowIndex), y: blank("f64", rows * outDim) },
      { ...sizes, transW: 0 },
    ).y;
  const { dw } = runKernel(
    backend,
    "groupedMatmulBackwardW",
    {
      x: f64(x),
      dy: f64(dy),
      offsets,
      xIndex: i32(rowIndex),
      dyIndex: undefined,
      dw: blank("f64", experts * outDim * inDim),
    },
    { ...sizes, dyRows: rows },
  );
  const dxRows = runKernel(
    backend,
    "groupedMatmul",
    { x: f64(dy), w: f64(w), offsets, rowIndex: undefined, y: blank("f64", rows * inDim) },
    { ...sizes, xRows: rows, transW: 1 },
  ).y;
  const dx = new Float64Array(xRows * inDim);
  for (const [r, token] of rowIndex.entries()) {
    for (let c = 0; c < inDim; c++) dx[token * inDim + c]! += dxRows[r * inDim + c]!;
  }
  expectGradient(dw, w, (value) => dot(forward(x, value), dy));
  expectGradient(dx, x, (value) => dot(forward(value, w), dy));
});

test.each([true, false])("siluMulBackward gives all gradients (row scale given: %s)", (scaled) => {
  const rng = new Rng(5, "silu");
  const [n, d] = [3, 4];
  const gate = uniform(rng, n * d, 3);
  const up = uniform(rng, n * d);
  const scale = uniform(rng, n);
  const dy = uniform(rng, n * d);
  const loss = (g: Float64Array, u: Float64Array, s: Float64Array): number =>
    dot(
      runKernel(
        backend,
        "siluMul",
        { gate: f64(g), up: f64(u), scale: scaled ? f64(s) : undefined, y: blank("f64", n * d) },
        { n, d },
      ).y,
      dy,
    );
  const { dGate, dUp, dScale } = runKernel(
    backend,
    "siluMulBackward",
    {
      gate: f64(gate),
      up: f64(up),
      scale: scaled ? f64(scale) : undefined,
      dy: f64(dy),
      dGate: blank("f64", n * d),
      dUp: blank("f64", n * d),
      dScale: scaled ? blank("f64", n) : undefined,
    },
    { n, d },
  );
  expectGradient(dGate, gate, (value) => loss(value, up, scale));
  expectGradient(dUp, up, (value) => loss(gate, value, scale));
  if (scaled) expectGradient(dScale, scale, (value) => loss(gate, up, value));
});

test.each([0, 1])("rope by the inverse angle is the gradient of rope (interleave %i)", (interleave) => {
  const rng = new Rng(6, "rope");
  const [n, heads, headDim, ropeDim, maxPos] = [3, 2, 6, 4, 8];
  const xStride = heads * headDim;
  const x = uniform(rng, n * xStride);
  const dy = uniform(rng, n * xStride);
  const table = f64(uniform(rng, maxPos * ropeDim));
  const rotate = (value: Float64Array, inverse: number): Float64Array =>
    runKernel(
      backend,
      "rope",
      { x: f64(value), table, positions: i32([5, 0, 7]), y: blank("f64", n * xStride) },
      { n, heads, headDim, ropeDim, xStride, yStride: xStride, maxPos, interleave, inverse, accumulate: 0 },
    ).y;
  expectGradient(rotate(dy, 1), x, (value) => dot(rotate(value, 0), dy));
});

const ROUTERS = [0, 1].flatMap((scoreFunc) => [0, 1].map((normalize) => ({ scoreFunc, normalize })));

test.each(ROUTERS)("routeBackward gives the gradient of the logits (%o)", ({ scoreFunc, normalize }) => {
  const rng = new Rng(7, "route");
  const [n, experts, topk, routeScale] = [3, 6, 3, 2.5];
  const logits = uniform(rng, n * experts, 2);
  const bias = f64(uniform(rng, experts, 0.1));
  const dWeights = uniform(rng, n * topk);
  const dScores = uniform(rng, n * experts);
  const routing = { n, experts, topk, scoreFunc, normalize, routeScale };
  const forward = (value: Float64Array): Record<"scores" | "idx" | "weights", Float64Array> =>
    runKernel(
      backend,
      "route",
      {
        logits: f64(value),
        bias,
        scores: blank("f64", n * experts),
        idx: blank("i32", n * topk),
        weights: blank("f64", n * topk),
      },
      { ...routing, groups: 3, limitedGroups: 2, groupScore: 2 },
    );
  const { scores, idx } = forward(logits);
  const backward = (withWeights: boolean, withScores: boolean): Float64Array =>
    runKernel(
      backend,
      "routeBackward",
      {
        scores: f64(scores),
        idx: i32(idx),
        dWeights: withWeights ? f64(dWeights) : undefined,
        dScores: withScores ? f64(dScores) : undefined,
        dLogits: blank("f64", n * experts),
      },
      routing,
    ).dLogits;
  expectGradient(backward(true, false), logits, (value) => dot(forward(value).weights, dWeights));
  expectGradient(backward(false, true), logits, (value) => dot(forward(value).scores, dScores));
  expectGradient(backward(true, true), logits, (value) => {
    const routed = forward(value);
    return dot(routed.weights, dWeights) + dot(routed.scores, dScores);
  });
});

test("gathering by rowToken is the gradient of combine", () => {
  const rng = new Rng(8, "combine");
  const [n, topk, d, experts] = [4, 2, 3, 3];
  const rows = n * topk;
  const plan = runKernel(
    backend,
    "moePlan",
    {
      idx: i32([2, 0, 0, 1, 2, 1, 0, 2]),
      offsets: blank("i32", experts + 1),
      rowToken: blank("i32", rows),
      rowSlot: blank("i32", rows),
      slotRow: blank("i32", rows),
    },
    { n, topk, experts },
  );
  const ys = uniform(rng, rows * d);
  const dy = uniform(rng, n * d);
  const dys = runKernel(
    backend,
    "gatherRows",
    { x: f64(dy), index: i32(plan.rowToken), y: blank("f64", rows * d) },
    { rows, d, xRows: n },
  ).y;
  expectGradient(dys, ys, (value) =>
    dot(
      runKernel(
        backend,
        "combine",
        { ys: f64(value), slotRow: i32(plan.slotRow), base: undefined, y: blank("f64", n * d) },
        { n, topk, d, accumulate: 0 },
      ).y,
      dy,
    ),
  );
});

test("balanceLoss gives its gradient in the scores, with segments of different lengths", () => {
  const rng = new Rng(9, "balance");
  const [n, experts, topk, segments] = [6, 4, 2, 3];
  const scores = uniform(rng, n * experts).map((value) => value / 3 + 0.5);
  const run = (value: Float64Array): Record<"loss" | "dScores", Float64Array> =>
    runKernel(
      backend,
      "balanceLoss",
      {
        scores: f64(value),
        idx: i32([0, 1, 2, 0, 3, 1, 0, 2, 1, 3, 0, 1]),
        segments: i32([0, 1, 4, 6]),
        loss: blank("f64", 1),
        dScores: blank("f64", n * experts),
      },
      { n, experts, topk, segments, alpha: 0.7 },
    );
  expectGradient(run(scores).dScores, scores, (value) => run(value).loss[0]!);
});

/** k1 and v interleaved as the model has them, k2 shared by all heads; then plain heads without k2. */
const ATTENTIONS = [
  { title: "latent keys with a shared rope part", kvHeads: 2, nopeDim: 3, ropeDim: 2, valueDim: 4, shared: true },
  { title: "rope keys of every head's own", kvHeads: 2, nopeDim: 2, ropeDim: 2, valueDim: 1, shared: false },
  { title: "no rope part", kvHeads: 2, nopeDim: 4, ropeDim: 0, valueDim: 4, shared: true },
  { title: "two heads on the same keys and values", kvHeads: 1, nopeDim: 4, ropeDim: 0, valueDim: 4, shared: true },
];

test.each(ATTENTIONS)("attentionBackward gives all gradients: $title", (attention) => {
  const { kvHeads, nopeDim, ropeDim, valueDim, shared } = attention;
  const rng = new Rng(10, "attention");
  const [n, heads, seqs] = [7, 2, 3];
  const seqStarts = i32([0, 4, 5, 7]);
  const [k1Row, k2Row, vRow] = [kvHeads * nopeDim + 1, heads * ropeDim + 1, kvHeads * valueDim + 2];
  const x = {
    q: uniform(rng, n * heads * (nopeDim + ropeDim)),
    k1: uniform(rng, n * k1Row),
    k2: uniform(rng, n * k2Row),
    v: uniform(rng, n * vRow),
  };
  const dOut = uniform(rng, n * heads * valueDim);
  const numbers = {
    ...{ n, heads, kvHeads, nopeDim, ropeDim, valueDim, seqs, scale: 0.7, compute: 0 },
    ...{ qStride: heads * (nopeDim + ropeDim), k1Row, k1Head: nopeDim, vRow, vHead: valueDim },
    ...{ k2Row, k2Head: shared ? 0 : ropeDim },
  };
  const operands = (value: typeof x): Pick<Fields<"attention">, "q" | "k1" | "k2" | "v" | "seqStarts"> => ({
    q: f64(value.q),
    k1: f64(value.k1),
    k2: ropeDim === 0 ? undefined : f64(value.k2),
    v: f64(value.v),
    seqStarts,
  });
  const forward = (value: typeof x): Record<"out" | "lse", Float64Array> =>
    runKernel(
      backend,
      "attention",
      { ...operands(value), out: blank("f64", n * heads * valueDim), lse: blank("f64", n * heads) },
      numbers,
    );
  const { out, lse } = forward(x);
  const zero = (like: Float64Array): Field => f64(new Float64Array(like.length));
  const gradient = runKernel(
    backend,
    "attentionBackward",
    {
      ...operands(x),
      ...{ out: f64(out), lse: f64(lse), dOut: f64(dOut), delta: blank("f64", n * heads) },
      ...{ dq: zero(x.q), dk1: zero(x.k1), dk2: ropeDim === 0 ? undefined : zero(x.k2), dv: zero(x.v) },
    },
    numbers,
  );
  const lossWith = (key: keyof typeof x) => (value: Float64Array) => dot(forward({ ...x, [key]: value }).out, dOut);
  expectGradient(gradient.dq, x.q, lossWith("q"));
  expectGradient(gradient.dk1, x.k1, lossWith("k1"));
  expectGradient(gradient.dv, x.v, lossWith("v"));
  if (ropeDim > 0) expectGradient(gradient.dk2, x.k2, lossWith("k2"));
});

test("softmaxCrossEntropy gives its gradient in the logits, 0 in ignored rows", () => {
  const rng = new Rng(11, "loss");
  const [rows, vocab, scale] = [3, 5, 0.4];
  const logits = uniform(rng, rows * vocab, 3);
  const run = (value: Float64Array): Record<"losses" | "dLogits", Float64Array> =>
    runKernel(
      backend,
      "softmaxCrossEntropy",
      {
        logits: f64(value),
        targets: i32([4, -1, 0]),
        losses: blank("f64", rows),
        dLogits: blank("f64", rows * vocab),
      },
      { rows, vocab, scale },
    );
  expectGradient(
    run(logits).dLogits,
    logits,
    (value) => scale * run(value).losses.reduce((sum, loss) => sum + loss, 0),
  );
});
