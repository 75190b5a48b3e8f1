/**
 * RoPE with YaRN: frequencies and the table of cosines and sines, in float64, to be rounded once. YaRN acts whenever ropeFactor > 1, whatever the sequence length.
 *
 * **Source:** Peng et al. 2023 (arXiv 2309.00071); deepseek-ai/DeepSeek-V3 inference/model.py, precompute_freqs_cis.
 */

import type { ModelConfig } from "../config/index.ts";

type RopeConfig = Pick<
  ModelConfig,
  "qkRopeHeadDim" | "ropeTheta" | "ropeFactor" | "ropeScale" | "originalSeqLen" | "betaFast" | "betaSlow"
>;

/** Radians per position of each of the ropeDim / 2 pairs. */
export function ropeFrequencies(config: RopeConfig): Float64Array {
  const { qkRopeHeadDim: dim, ropeTheta, ropeFactor } = config;
  const base = Float64Array.from({ length: dim / 2 }, (_, i) => ropeTheta ** ((-2 * i) / dim));
  if (ropeFactor <= 1) return base;
  const [low, high] = correctionRange(config);
  return base.map((frequency, i) => {
    const ramp = Math.min(1, Math.max(0, (i - low) / (high - low)));
    return (frequency / ropeFactor) * ramp + frequency * (1 - ramp);
  });
}

/** Pairs below `low` keep their frequency, those above `high` are slowed by the whole factor. */
function correctionRange(config: RopeConfig): [low: number, high: number] {
  const { qkRopeHeadDim: dim, ropeTheta, originalSeqLen, betaFast, betaSlow } = config;
  const pairAt = (rotations: number): number =>
    (dim * Math.log(originalSeqLen / (2 * Math.PI * rotations))) / (2 * Math.log(ropeTheta));
  const low = Math.max(Math.floor(pairAt(betaFast)), 0);
  const high = Math.min(Math.ceil(pairAt(betaSlow)), dim - 1);
  return [low, low === high ? high + 0.001 : high];
}

/** [positions, ropeDim]: ropeDim / 2 cosines, then as many sines. */
export function ropeTable(config: RopeConfig, positions: number): Float64Array {
  const frequencies = ropeFrequencies(config);
  const half = frequencies.length;
  const { ropeScale } = config;
  const table = new Float64Array(positions * 2 * half);
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = position * frequencies[i]!;
      table[position * 2 * half + i] = Math.cos(angle) * ropeScale;
      table[position * 2 * half + half + i] = Math.sin(angle) * ropeScale;
    }
  }
  return table;
}
