/** Mixture of experts: the router, its balance loss, and the routed experts as grouped products. */

import { ShapeError } from "../../core/errors.ts";
import type { Parameter } from "../parameter.ts";
import { apply, valueOf, type BackwardCall, type Call, type OpRow } from "../op.ts";
import type { Compute, Scope } from "../scope.ts";
import { inputOf, StoredMatrix, weightOperands, type Weight } from "../stored-matrix.ts";
import type { Tensor } from "../tensor.ts";
import { computeId } from "./linear.ts";

export interface RouteAttrs {
  readonly experts: number;
  /** Experts per token. */
  readonly topk: number;
  readonly groups: number;
  readonly limitedGroups: number;
  readonly scoreFunc: "softmax" | "sigmoid";
  /** How a group is scored: not at all, by its best expert (V2), or by the sum of its two best (V3). */
  readonly groupScore: "none" | "max" | "top2";
  readonly normalize: boolean;
  readonly routeScale: number;
}

const SCORE_FUNC = { softmax: 0, sigmoid: 1 } as const;
const GROUP_SCORE = { none: 0, max: 1, top2: 2 } as const;

function routeNumbers(
  attrs: RouteAttrs,
  n: number,
): Record<"n" | "experts" | "topk" | "scoreFunc" | "normalize" | "routeScale", number> {
  return {
    n,
    experts: attrs.experts,
    topk: attrs.topk,
    scoreFunc: SCORE_FUNC[attrs.scoreFunc],
    normalize: Number(attrs.normalize),
    routeScale: attrs.routeScale,
  };
}

const routeRow: OpRow<RouteAttrs> = {
  name: "route",
  source: "DeepSeek-V2 report 2.2.2, DeepSeek-V3 report eq. 12–16; deepseek-ai/DeepSeek-V3 inference/model.py, Gate",
  outputs: ([logits], { experts, topk }) => {
    const { rows, columns, shape } = valueOf(logits);
    if (columns !== experts) throw new ShapeError("route", `logits with ${experts} columns`, shape);
    return [{ shape: [rows, topk], dtype: "i32" }, { shape: [rows, topk] }, { shape: [rows, experts] }];
  },
  forward: ({ scope, inputs: [logits, bias], outputs: [idx, weights, scores], attrs }) => {
    const numbers = {
      ...routeNumbers(attrs, valueOf(logits).rows),
      groups: attrs.groups,
      limitedGroups: attrs.limitedGroups,
      groupScore: GROUP_SCORE[attrs.groupScore],
    };
    const operands = { logits: valueOf(logits), scores: scores!, idx: idx!, weights: weights! };
    scope.run("route", bias === null ? operands : { ...operands, bias: valueOf(bias) }, numbers);
  },
  backward: (call) => {
    const [idx, , scores] = call.outputs;
    const dWeights = call.grad(1) ?? undefined;
    const dScores = call.grad(2) ?? undefined;
    call.scope.run(
      "routeBackward",
      { scores: scores!, idx: idx!, dWeights, dScores, dLogits: call.whole(0) },
      routeNumbers(call.attrs, scores!.rows),
    );
  },
  saves: { inputs: [], outputs: [0, 2] },
  flops: ([logits]) => ({ forward: 4 * valueOf(logits).size, backward: 4 * valueOf(logits).size }),
};

/**
 * Chooses experts. Returns idx [N, A] (i32), weights [N, A] and the unbiased scores [N, E]. The choice itself has no
 * gradient; bias [E] only moves the choice.
 */
export function route(
  scope: Scope,
  logits: Tensor,
  bias: Parameter | null,
  attrs: RouteAttrs,
): { idx: Tensor; weights: Tensor; scores: Tensor } {
  const [idx, weights, scores] = apply(routeRow, scope, [logits, bias], attrs);
  return { idx: idx!, weights: weights!, scores: scores! };
}

const balanceRow: OpRow<{ alpha: number }> = {
  name: "balanceLoss",
  source: "DeepSeek-V3 report eq. 17–20; with softmax scores DeepSeek-V2 report eq. 23",
  outputs: () => [{ shape: [1] }],
  extras: ([scores]) => [{ shape: valueOf(scores).shape }],
  forward: ({ scope, inputs, outputs: [loss], extras: [dScores], attrs: { alpha } }) => {
    const [scores, idx, segments] = inputs.map(valueOf);
    scope.run(
      "balanceLoss",
      { scores: scores!, idx: idx!, segments: segments!, loss: loss!, dScores: dScores! },
      { n: scores!.rows, experts: scores!.columns, topk: idx!.columns, segments: segments!.size - 1, alpha },
    );
  },
  backward: (call) => call.pass(0, call.extras[0]!),
  saves: { inputs: [], outputs: [] },
  flops: ([scores]) => ({ forward: 6 * valueOf(scores).size, backward: 0 }),
};

/** α · mean over segments of Σ f P; a root of backward. segments [S+1] (i32) are row starts. */
export function balanceLoss(scope: Scope, scores: Tensor, idx: Tensor, segments: Tensor, alpha: number): Tensor {
  return apply(balanceRow, scope, [scores, idx, segments], { alpha })[0]!;
}

interface ExpertAttrs {
  readonly w1: Weight;
  readonly w3: Weight;
  readonly w2: Weight;
  readonly compute: Compute;
}

interface Plan {
  readonly offsets: Tensor;
  readonly rowToken: Tensor;
  readonly rowSlot: Tensor;
  readonly slotRow: Tensor;
}

interface ExpertDims {
  readonly tokens: number;
  readonly topk: number;
  readonly rows: number;
  readonly experts: number;
  readonly hidden: number;
  readonly dim: number;
}

function expertDims({ inputs, attrs }: Pick<Call<ExpertAttrs>, "inputs" | "attrs">): ExpertDims {
  const [x, weights] = inputs.slice(0, 2).map(valueOf);
  const [experts, hidden, dim] = attrs.w1.shape as [number, number, number];
  if (x!.columns !== dim) throw new ShapeError("experts", `input with ${dim} columns`, x!.shape);
  return { tokens: x!.rows, topk: weights!.columns, rows: weights!.size, experts, hidden, dim };
}

/** y (+)= W[e] x or W[e]ᵀ x over the sorted rows of each expert. */
function grouped(
  call: Call<ExpertAttrs>,
  plan: Plan,
  matrix: Weight,
  io: { x: Tensor; y: Tensor; gather?: boolean; transpose?: boolean; accumulate?: boolean },
): void {
  const { tokens, rows } = expertDims(call);
  const [experts, outDim, inDim] = matrix.shape as [number, number, number];
  const { compute } = call.attrs;
  const { weight, scale, numbers } = weightOperands(matrix, compute);
  const { x, y, gather = false, transpose = false, accumulate = false } = io;
  call.scope.run(
    "groupedMatmul",
    { x, w: weight, offsets: plan.offsets, rowIndex: gather ? plan.rowToken : undefined, y, wScale: scale },
    {
      experts,
      rows,
      xRows: gather ? tokens : rows,
      outDim,
      inDim,
      transW: Number(transpose),
      accumulate: Number(accumulate),
      compute: computeId(compute),
      ...numbers,
      list: Number(matrix instanceof StoredMatrix && matrix.isList),
    },
  );
}

/** dW[e] (+)= dyᵀ x over the sorted rows of each expert. */
function groupedGradient(
  call: BackwardCall<ExpertAttrs>,
  plan: Plan,
  weight: { index: number; matrix: Weight },
  io: { x: Tensor; dy: Tensor; gather: "x" | "dy" },
): void {
  const target = call.into(weight.index);
  if (target === null) return;
  const { tokens, rows } = expertDims(call);
  const [experts, outDim, inDim] = weight.matrix.shape as [number, number, number];
  const gatherX = io.gather === "x";
  call.scope.run(
    "groupedMatmulBackwardW",
    {
      x: io.x,
      dy: io.dy,
      offsets: plan.offsets,
      dw: target.tensor,
      xIndex: gatherX ? plan.rowToken : undefined,
      dyIndex: gatherX ? undefined : plan.rowToken,
    },
    {
      experts,
      rows,
      xRows: gatherX ? tokens : rows,
      dyRows: gatherX ? rows : tokens,
      outDim,
      inDim,
      accumulate: target.accumulate,
      compute: computeId(call.attrs.compute),
    },
  );
}

const expertsRow: OpRow<ExpertAttrs> = {
  name: "experts",
  source: "DeepSeek-V3 report eq. 12; the weight multiplies the hidden activation before w2, which is the same sum",
  outputs: ([x]) => [{ shape: valueOf(x).shape }],
  extras: (inputs, attrs) => {
    const { rows, experts, hidden } = expertDims({ inputs, attrs });
    const index = { shape: [rows], dtype: "i32" } as const;
    const wide = { shape: [rows, hidden] };
    return [{ shape: [experts + 1], dtype: "i32" }, index, index, index, { shape: [rows] }, wide, wide];
  },
  forward: (call) => {
    const { tokens, topk, rows, experts, hidden, dim } = expertDims(call);
    const [x, weights, idx] = call.inputs.slice(0, 3).map(valueOf);
    const [offsets, rowToken, rowSlot, slotRow, rowWeight, gate, up] = call.extras as Tensor[];
    const plan = { offsets: offsets!, rowToken: rowToken!, rowSlot: rowSlot!, slotRow: slotRow! };
    using scratch = call.scope.child();
    scratch.run("moePlan", { idx: idx!, ...plan }, { n: tokens, topk, experts });
    scratch.run("gatherRows", { x: weights!, index: plan.rowSlot, y: rowWeight! }, { rows, d: 1, xRows: rows });
    grouped(call, plan, call.attrs.w1, { x: x!, y: gate!, gather: true });
    grouped(call, plan, call.attrs.w3, { x: x!, y: up!, gather: true });
    const h = scratch.empty([rows, hidden], x!.dtype);
    scratch.run("siluMul", { gate: gate!, up: up!, scale: rowWeight!, y: h }, { n: rows, d: hidden });
    const ys = scratch.empty([rows, dim], x!.dtype);
    grouped(call, plan, call.attrs.w2, { x: h, y: ys });
    scratch.run(
      "combine",
      { ys, slotRow: plan.slotRow, y: call.outputs[0]! },
      { n: tokens, topk, d: dim, accumulate: 0 },
    );
  },
  backward: (call) => {
    const { tokens, topk, rows, hidden, dim } = expertDims(call);
    const { w1, w3, w2 } = call.attrs;
    const x = valueOf(call.inputs[0]);
    const [offsets, rowToken, rowSlot, slotRow, rowWeight, gate, up] = call.extras as Tensor[];
    const plan = { offsets: offsets!, rowToken: rowToken!, rowSlot: rowSlot!, slotRow: slotRow! };
    const dy = call.grad(0)!;
    using scratch = call.scope.child();
    const wide = (): Tensor => scratch.empty([rows, hidden], x.dtype);
    const h = wide();
    scratch.run("siluMul", { gate: gate!, up: up!, scale: rowWeight!, y: h }, { n: rows, d: hidden });
    groupedGradient(call, plan, { index: 5, matrix: w2 }, { x: h, dy, gather: "dy" });
    // h is no longer needed: its memory takes dh.
    const dh = h;
    grouped(call, plan, w2, { x: dy, y: dh, gather: true, transpose: true });
    const [dGate, dUp, dRowWeight] = [wide(), wide(), scratch.empty([rows], x.dtype)];
    scratch.run(
      "siluMulBackward",
      { gate: gate!, up: up!, scale: rowWeight!, dy: dh, dGate, dUp, dScale: dRowWeight },
      { n: rows, d: hidden },
    );
    scratch.drop(dh);
    const dWeights = call.whole(1);
    scratch.run("gatherRows", { x: dRowWeight, index: plan.slotRow, y: dWeights }, { rows, d: 1, xRows: rows });
    groupedGradient(call, plan, { index: 3, matrix: w1 }, { x, dy: dGate, gather: "x" });
    groupedGradient(call, plan, { index: 4, matrix: w3 }, { x, dy: dUp, gather: "x" });
    const dx = call.into(0);
    if (dx === null) return;
    const dxs = scratch.empty([rows, dim], x.dtype);
    grouped(call, plan, w1, { x: dGate, y: dxs, transpose: true });
    grouped(call, plan, w3, { x: dUp, y: dxs, transpose: true, accumulate: true });
    const numbers = { n: tokens, topk, d: dim, accumulate: dx.accumulate };
    scratch.run("combine", { ys: dxs, slotRow: plan.slotRow, y: dx.tensor }, numbers);
  },
  saves: { inputs: [0], outputs: [] },
  flops: (inputs, attrs) => {
    const { rows, hidden, dim } = expertDims({ inputs, attrs });
    return { forward: 6 * rows * hidden * dim, backward: 12 * rows * hidden * dim };
  },
};

/**
 * Σ_a weights[n, a] · w2[e] (silu(w1[e] x) · w3[e] x) over the chosen experts e = idx[n, a].
 * x [N, D]; w1, w3 [E, F, D]; w2 [E, D, F]; weights, idx [N, A].
 */
export function experts(
  scope: Scope,
  x: Tensor,
  routing: { weights: Tensor; idx: Tensor },
  matrices: { w1: Weight; w3: Weight; w2: Weight },
): Tensor {
  const { w1, w3, w2 } = matrices;
  const inputs = [x, routing.weights, routing.idx, inputOf(w1), inputOf(w3), inputOf(w2)];
  return apply(expertsRow, scope, inputs, { w1, w3, w2, compute: scope.compute })[0]!;
}
