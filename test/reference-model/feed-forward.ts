/**
 * SwiGLU, the routers of V2 and V3, the mixture of experts, and the balance loss, one token at a time.
 * **Source:** DeepSeek-V2 report 2.2, eq. 20–25; DeepSeek-V3 report 2.1.2, eq. 12–20.
 */

import type { ModelConfig } from "../../src/config/index.ts";
import { multiply, plus, sigmoid, softmax, times, topIndices, type Vector } from "./arrays.ts";
import { NO_FAULTS, type Faults } from "./faults.ts";
import type { LayerReader } from "./weights.ts";

/** w2(silu(w1 x) · w3 x); of stacked experts the one with number `expert`. */
function swiglu(at: LayerReader, prefix: string, x: Vector, expert?: number): number[] {
  const product = (name: string, input: Vector): number[] => {
    const w = at.matrix(`${prefix}.${name}`);
    if (expert === undefined) return multiply(w, input);
    const rows = name === "w2" ? x.length : hiddenWidth(at, prefix);
    return multiply(w, input, expert * rows, rows);
  };
  const gate = product("w1", x);
  const up = product("w3", x);
  return product(
    "w2",
    gate.map((value, i) => value * sigmoid(value) * up[i]!),
  );
}

/** w2 is [.., D, F]. */
function hiddenWidth(at: LayerReader, prefix: string): number {
  return at.matrix(`${prefix}.w2`).width;
}

export interface Routing {
  /** Unbiased scores of all experts. */
  readonly scores: number[];
  readonly chosen: number[];
  readonly weights: number[];
}

export function route(config: ModelConfig, at: LayerReader, x: Vector, faults: Faults = NO_FAULTS): Routing {
  const { nRoutedExperts, nActivatedExperts, topkMethod, normTopkProb, routeScale } = config;
  const logits = multiply(at.matrix("ffn.gate"), x);
  const scores = config.scoreFunc === "sigmoid" ? logits.map(sigmoid) : softmax(logits);
  const bias = topkMethod === "noaux_tc" ? at.vector("ffn.gate.bias") : Array<number>(nRoutedExperts).fill(0);
  const selection = plus(scores, bias);
  const allowed = allowedExperts(config, selection, faults);
  const refused = faults.has("mask 0") ? 0 : -Infinity;
  const chosen = topIndices(
    selection.map((score, e) => (allowed.has(e) ? score : refused)),
    nActivatedExperts,
  );
  const shares = faults.has("biased weights") ? selection : scores;
  const sum = chosen.reduce((total, e) => total + shares[e]!, 0);
  return { scores, chosen, weights: chosen.map((e) => (routeScale * shares[e]!) / (normTopkProb ? sum : 1)) };
}

/** Experts of the nLimitedGroups best groups: by their best expert (V2) or the sum of their two best (V3). */
function allowedExperts(config: ModelConfig, selection: Vector, faults: Faults): Set<number> {
  const { nExpertGroups: groups, nLimitedGroups, topkMethod } = config;
  const size = selection.length / groups;
  const members = Array.from({ length: groups }, (_, g) => selection.map((_, e) => e).slice(g * size, (g + 1) * size));
  const best = (topkMethod === "noaux_tc") === faults.has("other group rule") ? 1 : 2;
  const groupScores = members.map((group) => {
    const sorted = group.map((e) => selection[e]!).toSorted((a, b) => b - a);
    return sorted.slice(0, best).reduce((a, b) => a + b, 0);
  });
  return new Set(topIndices(groupScores, nLimitedGroups).flatMap((g) => members[g]!));
}

export function denseFeedForward(at: LayerReader, x: Vector): number[] {
  return swiglu(at, "ffn", x);
}

export function mixture(config: ModelConfig, at: LayerReader, x: Vector, { chosen, weights }: Routing): number[] {
  const parts = chosen.map((e, a) => times(weights[a]!, swiglu(at, "ffn.experts", x, e)));
  if (config.nSharedExperts > 0) parts.push(swiglu(at, "ffn.shared_experts", x));
  return parts.reduce(plus);
}

/** α · mean over segments of Σ_i f_i P_i, f_i = E / (k T) · tokens that chose i, P_i = mean of s_i / Σ_j s_j. */
export function balanceLoss(
  config: ModelConfig,
  routings: readonly Routing[],
  segments: readonly number[],
  alpha: number,
): number {
  const { nRoutedExperts: experts, nActivatedExperts: topk } = config;
  const losses = segments.slice(1).map((end, g) => {
    const own = routings.slice(segments[g], end);
    const terms = Array.from({ length: experts }, (_, i) => {
      const f = (experts / (topk * own.length)) * own.filter(({ chosen }) => chosen.includes(i)).length;
      const shares = own.map(({ scores }) => scores[i]! / scores.reduce((a, b) => a + b, 0));
      return (f * shares.reduce((a, b) => a + b, 0)) / own.length;
    });
    return terms.reduce((a, b) => a + b, 0);
  });
  return (alpha * losses.reduce((a, b) => a + b, 0)) / losses.length;
}
