/** Routing of tokens to experts and back. Source: DeepSeek-V2 report 2.2, DeepSeek-V3 report 2.1.2. */

import { invariant } from "../../core/errors.ts";
import type { Call } from "./call.ts";

/** The `count` indices of the largest values, falling; ties go to the lower index. */
function largest(values: Float64Array, count: number): number[] {
  const taken = new Uint8Array(values.length);
  const best: number[] = [];
  for (let a = 0; a < count; a++) {
    let choice = taken.indexOf(0);
    for (let e = choice + 1; e < values.length; e++) {
      if (taken[e] === 0 && values[e]! > values[choice]!) choice = e;
    }
    taken[choice] = 1;
    best.push(choice);
  }
  return best;
}

function total(values: Iterable<number>): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}

function softmax(logits: Float64Array): Float64Array {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = logits.map((logit) => Math.exp(logit - max));
  const sum = total(powers);
  return powers.map((power) => power / sum);
}

const sigmoid = (logit: number): number => 1 / (1 + Math.exp(-logit));

/** Sets the selection scores of all but the `limit` best groups to −∞. A group's score sums its `top` largest. */
function limitGroups(
  selection: Float64Array,
  { groups, limit, top }: { groups: number; limit: number; top: number },
): void {
  const size = selection.length / groups;
  const members = (group: number): Float64Array => selection.subarray(group * size, (group + 1) * size);
  const groupScores = Float64Array.from({ length: groups }, (_, group) =>
    largest(members(group), Math.min(top, size)).reduce((sum, e) => sum + members(group)[e]!, 0),
  );
  const stay = new Set(largest(groupScores, limit));
  for (let group = 0; group < groups; group++) if (!stay.has(group)) members(group).fill(-Infinity);
}

export function route(call: Call<"route">): void {
  const n = call.count("n");
  const experts = call.count("experts");
  const topk = call.count("topk");
  const groupScore = call.count("groupScore");
  const [groups, limit] = [call.count("groups"), call.count("limitedGroups")];
  invariant(topk <= experts, `route.topk is at most experts (${experts}), got ${topk}`);
  if (groupScore !== 0) {
    invariant(experts % groups === 0, `route.groups divides experts (${experts}), got ${groups}`);
    invariant(limit <= groups, `route.limitedGroups is at most groups (${groups}), got ${limit}`);
  }
  const logits = call.floats("logits", n * experts);
  const bias = call.optionalFloats("bias", experts);
  const scores = call.floats("scores", n * experts);
  const idx = call.ints("idx", n * topk);
  const weights = call.floats("weights", n * topk);
  for (let r = 0; r < n; r++) {
    const row = Float64Array.from(logits.subarray(r * experts, (r + 1) * experts));
    scores.set(call.flag("scoreFunc") ? row.map(sigmoid) : softmax(row), r * experts);
    // The choice is made among the scores as they are stored, so that equal stored scores are ties.
    const stored = Float64Array.from(scores.subarray(r * experts, (r + 1) * experts));
    const selection = bias === undefined ? stored.slice() : stored.map((score, e) => score + bias[e]!);
    if (groupScore !== 0) limitGroups(selection, { groups, limit, top: groupScore });
    const chosen = largest(selection, topk);
    const divisor = call.flag("normalize") ? total(chosen.map((e) => stored[e]!)) + 1e-20 : 1;
    for (const [a, e] of chosen.entries()) {
      idx[r * topk + a] = e;
      weights[r * topk + a] = (stored[e]! / divisor) * call.number("routeScale");
    }
  }
}

/**
 * With t_a = routeScale · dWeights_a and S = Σ_a s_a + 1e-20: ds_a = t_a / S − Σ_b t_b s_b / S² when normalized, t_a
 * otherwise. Then softmax: dl_e = s_e (ds_e − Σ_j s_j ds_j); sigmoid: dl_e = ds_e s_e (1 − s_e).
 */
export function routeBackward(call: Call<"routeBackward">): void {
  const n = call.count("n");
  const experts = call.count("experts");
  const topk = call.count("topk");
  const scores = call.floats("scores", n * experts);
  const idx = call.indices("idx", n * topk, experts);
  const dWeights = call.optionalFloats("dWeights", n * topk);
  const dScores = call.optionalFloats("dScores", n * experts);
  const dLogits = call.floats("dLogits", n * experts);
  const routeScale = call.number("routeScale");
  for (let r = 0; r < n; r++) {
    const s = scores.subarray(r * experts, (r + 1) * experts);
    const chosen = idx.subarray(r * topk, (r + 1) * topk);
    const ds = new Float64Array(experts);
    if (dScores !== undefined) ds.set(dScores.subarray(r * experts, (r + 1) * experts));
    if (dWeights !== undefined) {
      const normalize = call.flag("normalize");
      const divisor = normalize ? total([...chosen].map((e) => s[e]!)) + 1e-20 : 1;
      const t = Array.from(chosen, (_, a) => (routeScale * dWeights[r * topk + a]!) / divisor);
      const pull = normalize ? total(t.map((value, a) => (value * s[chosen[a]!]!) / divisor)) : 0;
      for (const [a, e] of chosen.entries()) ds[e]! += t[a]! - pull;
    }
    let dot = 0;
    for (let e = 0; e < experts; e++) dot += s[e]! * ds[e]!;
    for (let e = 0; e < experts; e++) {
      dLogits[r * experts + e] = call.flag("scoreFunc") ? ds[e]! * s[e]! * (1 - s[e]!) : s[e]! * (ds[e]! - dot);
    }
  }
}

/** A counting sort of the (token, choice) pairs by expert. */
export function moePlan(call: Call<"moePlan">): void {
  const n = call.count("n");
  const topk = call.count("topk");
  const experts = call.count("experts");
  const idx = call.indices("idx", n * topk, experts);
  const offsets = call.ints("offsets", experts + 1);
  const rowToken = call.ints("rowToken", n * topk);
  const rowSlot = call.ints("rowSlot", n * topk);
  const slotRow = call.ints("slotRow", n * topk);
  offsets.fill(0);
  for (const e of idx) offsets[e + 1]!++;
  for (let e = 0; e < experts; e++) offsets[e + 1]! += offsets[e]!;
  const next = offsets.slice(0, experts);
  for (const [slot, e] of idx.entries()) {
    const row = next[e]!++;
    rowToken[row] = Math.floor(slot / topk);
    rowSlot[row] = slot;
    slotRow[slot] = row;
  }
}

/** y[n, :] (+)= base[n, :] + Σ_a ys[slotRow[n, a], :] */
export function combine(call: Call<"combine">): void {
  const n = call.count("n");
  const topk = call.count("topk");
  const d = call.count("d");
  const ys = call.floats("ys", n * topk * d);
  const slotRow = call.indices("slotRow", n * topk, n * topk);
  const base = call.optionalFloats("base", n * d);
  const y = call.floats("y", n * d);
  const accumulate = call.flag("accumulate");
  for (let r = 0; r < n; r++) {
    for (let c = 0; c < d; c++) {
      let sum = base === undefined ? 0 : base[r * d + c]!;
      for (let a = 0; a < topk; a++) sum += ys[slotRow[r * topk + a]! * d + c]!;
      y[r * d + c] = (accumulate ? y[r * d + c]! : 0) + sum;
    }
  }
}

/**
 * loss = α / segments · Σ_segments Σ_e f_e P_e. With S = Σ_j score_j of a row and T rows in its segment,
 * dScore_e = α / (segments · T · S) · (f_e − Σ_j f_j score_j / S). An empty segment adds 0.
 */
export function balanceLoss(call: Call<"balanceLoss">): void {
  const n = call.count("n");
  const experts = call.count("experts");
  const topk = call.count("topk");
  const segments = call.count("segments");
  const scores = call.floats("scores", n * experts);
  const idx = call.indices("idx", n * topk, experts);
  const starts = call.starts("segments", segments, n);
  const loss = call.floats("loss", 1);
  const dScores = call.floats("dScores", n * experts);
  const factor = call.number("alpha") / segments;
  let sum = 0;
  dScores.fill(0);
  for (let g = 0; g < segments; g++) {
    const [start, end] = [starts[g]!, starts[g + 1]!];
    const rows = end - start;
    const frequency = new Float64Array(experts);
    for (const e of idx.subarray(start * topk, end * topk)) frequency[e]! += experts / (topk * rows);
    for (let r = start; r < end; r++) {
      const s = scores.subarray(r * experts, (r + 1) * experts);
      const rowSum = total(s);
      const mean = frequency.reduce((a, f, e) => a + (f * s[e]!) / rowSum, 0);
      sum += (factor * mean) / rows;
      for (let e = 0; e < experts; e++) dScores[r * experts + e] = (factor * (frequency[e]! - mean)) / (rows * rowSum);
    }
  }
  loss[0] = sum;
}

/** counts[e] (+)= how often e stands in the n entries of idx. */
export function expertCounts(call: Call<"expertCounts">): void {
  const experts = call.count("experts");
  const idx = call.indices("idx", call.count("n"), experts);
  const counts = call.floats("counts", experts);
  if (!call.flag("accumulate")) counts.fill(0);
  for (const e of idx) counts[e]!++;
}

/** bias[e] += speed · sign(mean(counts) − counts[e]) */
export function routerBiasInto(call: Call<"routerBiasInto">): void {
  const experts = call.count("experts");
  const counts = call.floats("counts", experts);
  const bias = call.floats("bias", experts);
  const mean = total(counts) / experts;
  for (let e = 0; e < experts; e++) bias[e]! += call.number("speed") * Math.sign(mean - counts[e]!);
}
