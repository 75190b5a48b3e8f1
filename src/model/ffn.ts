/**
 * The feed-forward half of a layer: one dense SwiGLU, or a mixture of routed experts with shared ones always on.
 *
 * **Source:** DeepSeek-V3 report 2.1.2, eq. 12–20; deepseek-ai/DeepSeek-V3 inference/model.py, MLP, Gate, MoE.
 */

import type { ModelConfig } from "../config/index.ts";
import {
  add,
  balanceLoss,
  route,
  siluMul,
  type Parameter,
  type RouteAttrs,
  type Scope,
  type Tensor,
} from "../tensor/index.ts";
import type { ExpertLinear, Linear } from "./linear.ts";
import { runnableScore } from "./runnable.ts";

/** What the routers of a forward pass report and collect. */
export interface RoutingSink {
  /** Asks every mixture for its balance loss; null leaves it out. */
  readonly balance: {
    /** i32 [S+1] row starts of the segments over which load is evened. */
    readonly segments: Tensor;
    readonly alpha: number;
    /** Takes a loss [1]: a root of backward that must outlive the layer. */
    readonly onLoss: (loss: Tensor) => void;
  } | null;
  /** Called with the chosen experts idx [N, A] (i32) of each mixture, by the mixture's number in the model. */
  readonly onRoute?: (mixture: number, idx: Tensor) => void;
}

export interface FeedForward {
  apply(scope: Scope, x_ND: Tensor, routing: RoutingSink): Tensor;
}

export interface SwigluWeights {
  readonly w1: Linear;
  readonly w2: Linear;
  readonly w3: Linear;
}

/** w2(silu(w1 x) · w3 x). */
export function swiglu({ w1, w2, w3 }: SwigluWeights): FeedForward {
  return {
    apply: (scope, x) => {
      using inner = scope.child();
      const h = siluMul(inner, w1.apply(inner, x), w3.apply(inner, x));
      return inner.keep(w2.apply(inner, h));
    },
  };
}

export interface MoeWeights {
  /** Multiplies in f32. */
  readonly gate: Linear;
  /** Only moves the choice of experts (noaux_tc). */
  readonly bias: Parameter | null;
  readonly experts: ExpertLinear;
  /** All shared experts as one SwiGLU; null without any. */
  readonly shared: FeedForward | null;
}

function routeAttrs(config: ModelConfig): RouteAttrs {
  const groupScore = { greedy: "none", group_limited_greedy: "max", noaux_tc: "top2" } as const;
  return {
    experts: config.nRoutedExperts,
    topk: config.nActivatedExperts,
    groups: config.nExpertGroups,
    limitedGroups: config.nLimitedGroups,
    scoreFunc: runnableScore(config),
    groupScore: config.nExpertGroups > 1 ? groupScore[config.topkMethod] : "none",
    normalize: config.normTopkProb,
    routeScale: config.routeScale,
  };
}

/** @param mixture number of this mixture in the model, counted from 0. */
export function moe(config: ModelConfig, weights: MoeWeights, mixture: number): FeedForward {
  const attrs = routeAttrs(config);
  return {
    apply: (scope, x, routing) => {
      using inner = scope.child();
      const { idx, weights: share, scores } = route(inner, weights.gate.apply(inner, x), weights.bias, attrs);
      routing.onRoute?.(mixture, idx);
      if (routing.balance !== null) {
        const { segments, alpha, onLoss } = routing.balance;
        onLoss(balanceLoss(inner, scores, idx, segments, alpha));
      }
      const routed = weights.experts.apply(inner, x, { weights: share, idx });
      if (weights.shared === null) return inner.keep(routed);
      return inner.keep(add(inner, routed, weights.shared.apply(inner, x, routing)));
    },
  };
}
