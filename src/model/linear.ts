/**
 * The one seam through which the model reaches its matrices, which are parameters in memory or matrices of a checkpoint
 * in their stored type; adapted and sharded ones will be others.
 */

import { experts, linear, type Compute, type Scope, type Tensor, type Weight } from "../tensor/index.ts";

export interface Linear {
  /** x [N, in] → [N, out]. */
  apply(scope: Scope, x: Tensor): Tensor;
}

export interface ExpertLinear {
  apply(scope: Scope, x: Tensor, routing: { weights: Tensor; idx: Tensor }): Tensor;
}

/** @param compute overrides the scope's precision (the router multiplies in f32 whatever the rest does). */
export function weightLinear(weight: Weight, compute?: Compute): Linear {
  return { apply: (scope, x) => linear(scope, x, weight, compute) };
}

export function weightExperts(w1: Weight, w3: Weight, w2: Weight): ExpertLinear {
  return { apply: (scope, x, routing) => experts(scope, x, routing, { w1, w3, w2 }) };
}
