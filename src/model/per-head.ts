/**
 * The matrix that expands latents into keys and values, seen whole and head by head: W_k [P, C] and W_v [U, C] of each
 * of H heads.
 *
 * Legend: N tokens, H heads, K = P + R query width, P no-position, R rope, U value, C latent.
 */

import { computeId, weightOperands, type Compute, type Scope, type Tensor, type Weight } from "../tensor/index.ts";
import { weightLinear, type Linear } from "./linear.ts";
import type { SplitHeads } from "./model-weights.ts";

export interface PerHeadLinear extends Linear {
  /** [N, H · K] (the first P values of each head) → [N, H · C]: each head times its W_k. */
  absorbKeys(scope: Scope, q_NHK: Tensor): Tensor;
  /** [N, H · C] → [N, H · U]: each head times its W_vᵀ. */
  expandValues(scope: Scope, u_NHC: Tensor): Tensor;
}

interface HeadDims {
  readonly heads: number;
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
  readonly latentDim: number;
}

/** W_k or W_v of every head. */
interface Half {
  readonly weight: Weight;
  /** Element at which the first head begins, and elements from head to head. */
  readonly at: number;
  readonly stride: number;
  /** Whether a head is stored as [C, P] in place of [P, C]. */
  readonly isTurned: boolean;
}

interface Product {
  readonly x: Tensor;
  /** Values of a row of x that one head reads, and the step from head to head; 0 where all heads read the same. */
  readonly k: number;
  readonly xHead: number;
  readonly y: Tensor;
  /** Where the first head's n values stand in a row of y, and the step from head to head. */
  readonly yAt: number;
  readonly n: number;
  readonly yHead: number;
  /** Whether it is x · Wᵀ in place of x · W. */
  readonly isTransposed: boolean;
  readonly compute: Compute;
}

function headProduct(scope: Scope, half: Half, product: Product): void {
  const { x, k, xHead, y, yAt, n, yHead, isTransposed, compute } = product;
  const { weight, scale, numbers } = weightOperands(half.weight, compute);
  scope.run(
    "matmul",
    {
      a: x,
      b: { handle: weight.handle, offset: weight.offset + half.at, dtype: weight.dtype },
      c: { handle: y.handle, offset: y.offset + yAt, dtype: y.dtype },
      bScale: scale,
    },
    {
      ...{ m: x.rows, n, k, transA: 0, transB: Number(isTransposed !== half.isTurned) },
      ...{ lda: x.columns, ldb: half.weight.shape.at(-1)!, ldc: y.columns },
      ...{ batch: y.columns / yHead, strideA: xHead, strideB: half.stride, strideC: yHead },
      ...{ accumulate: 0, compute: computeId(compute), ...numbers },
    },
  );
}

/** @param heads - rows of one matrix, P of W_k and then U of W_v for each head; or the two halves apart. */
export function perHead(heads: Weight | SplitHeads, dims: HeadDims): PerHeadLinear {
  return "keys" in heads ? splitHeads(heads, dims) : joinedHeads(heads, dims);
}

function joinedHeads(weight: Weight, dims: HeadDims): PerHeadLinear {
  const { nopeDim, valueDim, latentDim } = dims;
  const half = { weight, stride: (nopeDim + valueDim) * latentDim, isTurned: false };
  const halves = absorbed({ ...half, at: 0 }, { ...half, at: nopeDim * latentDim }, dims);
  return { ...weightLinear(weight), ...halves };
}

function splitHeads({ keys, values }: SplitHeads, dims: HeadDims): PerHeadLinear {
  const { heads, nopeDim, valueDim, latentDim } = dims;
  const ofKeys = { weight: keys, at: 0, stride: latentDim * nopeDim, isTurned: true };
  const ofValues = { weight: values, at: 0, stride: valueDim * latentDim, isTurned: false };
  return {
    apply: (scope, x) => {
      const yHead = nopeDim + valueDim;
      const y = scope.empty([x.rows, heads * yHead]);
      const shared = { x, y, k: latentDim, xHead: 0, yHead, isTransposed: true, compute: scope.compute };
      headProduct(scope, ofKeys, { ...shared, yAt: 0, n: nopeDim });
      headProduct(scope, ofValues, { ...shared, yAt: nopeDim, n: valueDim });
      return y;
    },
    ...absorbed(ofKeys, ofValues, dims),
  };
}

/** Products on the latents themselves; in f32, since they stand in for a part of attention. */
function absorbed(keys: Half, values: Half, dims: HeadDims): Omit<PerHeadLinear, "apply"> {
  const { heads, nopeDim, ropeDim, valueDim, latentDim } = dims;
  const shared = { yAt: 0, compute: "f32" } as const;
  return {
    absorbKeys: (scope, x) => {
      const y = scope.empty([x.rows, heads * latentDim]);
      const steps = { k: nopeDim, xHead: nopeDim + ropeDim, n: latentDim, yHead: latentDim };
      headProduct(scope, keys, { x, y, ...steps, ...shared, isTransposed: false });
      return y;
    },
    expandValues: (scope, x) => {
      const y = scope.empty([x.rows, heads * valueDim]);
      const steps = { k: latentDim, xHead: latentDim, n: valueDim, yHead: valueDim };
      headProduct(scope, values, { x, y, ...steps, ...shared, isTransposed: true });
      return y;
    },
  };
}
