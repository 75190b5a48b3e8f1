/**
 * From logits to one token: repetition penalty, temperature, top-k, top-p, then a draw, in this order.
 *
 * **Source:** order and meaning as in Hugging Face generate; penalty: Keskar et al. 2019 (arXiv 1909.05858), 4.1; top-p:
 * Holtzman et al. 2020 (arXiv 1904.09751).
 */

import type { GenerationConfig } from "../config/index.ts";
import type { Rng } from "../core/rng.ts";
import { Ranking } from "./ranking.ts";

export type SamplingConfig = Pick<GenerationConfig, "temperature" | "topK" | "topP" | "repetitionPenalty">;

/**
 * @param logits [V]; not changed. @param seen ids that the repetition penalty holds against a repeat.
 * @returns a token id. Temperature 0 takes the largest logit, ties to the lowest id.
 */
export function sample(logits: Float32Array, seen: ReadonlySet<number>, config: SamplingConfig, rng: Rng): number {
  const penalised = penalise(logits, seen, config.repetitionPenalty);
  const best = argmax(penalised);
  if (config.temperature === 0) return best;
  return draw(penalised, penalised[best]!, config, rng.uniform());
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

/** Draws among the shortest run of the topK likeliest ids (of all when 0) that holds topP of their probability. */
function draw(logits: Float32Array, largest: number, config: SamplingConfig, uniform: number): number {
  const { temperature, topK, topP } = config;
  const ranking = new Ranking(logits);
  const weightOf = (id: number): number => Math.exp((logits[id]! - largest) / temperature);
  const weightAt = (i: number): number => weightOf(ranking.at(i));
  const count = topK > 0 ? Math.min(topK, logits.length) : logits.length;
  const total = sum(count, topK > 0 ? weightAt : weightOf);
  let [kept, mass] = [count, total];
  if (topP < 1) {
    [kept, mass] = [1, weightAt(0)];
    while (kept < count && mass < topP * total) mass += weightAt(kept++);
  }
  let left = uniform * mass;
  for (let i = 0; i < kept; i++) {
    left -= weightAt(i);
    if (left < 0) return ranking.at(i);
  }
  return ranking.at(kept - 1);
}

function sum(count: number, weight: (i: number) => number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += weight(i);
  return total;
}
