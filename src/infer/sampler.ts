/**
 * From logits to one token: repetition penalty, temperature, top-k, top-p, then a draw, in this order.
 *
 * **Source:** order and meaning as in Hugging Face generate; penalty: Keskar et al. 2019 (arXiv 1909.05858), 4.1; top-p:
 * Holtzman et al. 2020 (arXiv 1904.09751).
 */

import type { GenerationConfig } from "../config/index.ts";
import type { Rng } from "../core/rng.ts";

export type SamplingConfig = Pick<GenerationConfig, "temperature" | "topK" | "topP" | "repetitionPenalty">;

/**
 * @param logits [V]; not changed. @param seen ids that the repetition penalty holds against a repeat.
 * @returns a token id. Temperature 0 takes the largest logit, ties to the lowest id.
 */
export function sample(logits: Float32Array, seen: ReadonlySet<number>, config: SamplingConfig, rng: Rng): number {
  const penalised = penalise(logits, seen, config.repetitionPenalty);
  if (config.temperature === 0) return argmax(penalised);
  const candidates = topCandidates(penalised, config.topK);
  const weights = softmax(candidates, penalised, config.temperature);
  return draw(candidates, weights, config.topP, rng.uniform());
}

function penalise(logits: Float32Array, seen: ReadonlySet<number>, penalty: number): Float32Array {
  if (penalty === 1) return logits;
  const result = logits.slice();
  for (const id of seen) {
    const logit = result[id]!;
    result[id] = logit > 0 ? logit / penalty : logit * penalty;
  }
  return result;
}

function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** Ids by falling logit, ties to the lower id; the first k of them when k > 0. */
function topCandidates(logits: Float32Array, k: number): Uint32Array {
  const ids = Uint32Array.from(logits, (_, id) => id);
  ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
  return k > 0 ? ids.subarray(0, k) : ids;
}

/** Unnormalised probabilities of the candidates. */
function softmax(ids: Uint32Array, logits: Float32Array, temperature: number): Float64Array {
  const largest = logits[ids[0]!]!;
  return Float64Array.from(ids, (id) => Math.exp((logits[id]! - largest) / temperature));
}

/** Draws among the shortest run of candidates that holds topP of the probability. */
function draw(ids: Uint32Array, weights: Float64Array, topP: number, uniform: number): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let kept = 0;
  let mass = 0;
  while (kept < ids.length && (kept === 0 || mass < topP * total)) mass += weights[kept++]!;
  let left = uniform * mass;
  for (let i = 0; i < kept; i++) {
    left -= weights[i]!;
    if (left < 0) return ids[i]!;
  }
  return ids[kept - 1]!;
}
