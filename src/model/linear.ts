/**
 * The one seam through which the model reaches its matrices. A dense matrix is one value of these types; quantised,
 * adapted and sharded ones will be others.
 */

import { experts, linear, type Compute, type Parameter, type Scope, type Tensor } from "../tensor/index.ts";

export interface Linear {
  /** x [N, in] → [N, out]. */
  apply(scope: Scope, x: Tensor): Tensor;
}

/** Rows of a matrix [H · (P+U), C] seen per head: W_k [P, C] and W_v [U, C]. */
export interface PerHeadLinear extends Linear {
  /** [N, H · K] (the first P values of each head) → [N, H · C]: each head times its W_k. */
  absorbKeys(scope: Scope, q_NHK: Tensor): Tensor;
  /** [N, H · C] → [N, H · U]: each head times its W_vᵀ. */
  expandValues(scope: Scope, u_NHC: Tensor): Tensor;
}

export interface ExpertLinear {
  apply(scope: Scope, x: Tensor, routing: { weights: Tensor; idx: Tensor }): Tensor;
}

/** @param compute overrides the scope's precision (the router multiplies in f32 whatever the rest does). */
export function denseLinear(weight: Parameter, compute?: Compute): Linear {
  return { apply: (scope, x) => linear(scope, x, weight, compute) };
}

export function denseExperts(w1: Parameter, w3: Parameter, w2: Parameter): ExpertLinear {
  return { apply: (scope, x, routing) => experts(scope, x, routing, { w1, w3, w2 }) };
}

interface HeadDims {
  readonly heads: number;
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
  readonly latentDim: number;
}

/** wkvB [H · (P+U), C], rows grouped per head: P rows of W_k, then U rows of W_v. Both halves are strided views. */
export function densePerHead(weight: Parameter, dims: HeadDims): PerHeadLinear {
  const { heads, nopeDim, ropeDim, valueDim, latentDim } = dims;
  const headStride = (nopeDim + valueDim) * latentDim;
  const matrix = (offset: number) => ({
    handle: weight.value.handle,
    offset: weight.value.offset + offset,
    dtype: weight.value.dtype,
  });
  const shared = { transA: 0, batch: heads, strideB: headStride, accumulate: 0, compute: 0 };
  return {
    apply: (scope, x) => linear(scope, x, weight),
    absorbKeys: (scope, q_NHK) => {
      const n = q_NHK.rows;
      const headDim = nopeDim + ropeDim;
      const c = scope.empty([n, heads * latentDim]);
      const numbers = {
        ...shared,
        m: n,
        n: latentDim,
        k: nopeDim,
        transB: 0,
        lda: heads * headDim,
        ldb: latentDim,
        ldc: heads * latentDim,
        strideA: headDim,
        strideC: latentDim,
      };
      scope.run("matmul", { a: q_NHK, b: matrix(0), c }, numbers);
      return c;
    },
    expandValues: (scope, u_NHC) => {
      const n = u_NHC.rows;
      const c = scope.empty([n, heads * valueDim]);
      const numbers = {
        ...shared,
        m: n,
        n: valueDim,
        k: latentDim,
        transB: 1,
        lda: heads * latentDim,
        ldb: latentDim,
        ldc: heads * valueDim,
        strideA: latentDim,
        strideC: valueDim,
      };
      scope.run("matmul", { a: u_NHC, b: matrix(nopeDim * latentDim), c }, numbers);
      return c;
    },
  };
}
