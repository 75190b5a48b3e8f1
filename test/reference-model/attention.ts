/**
 * Multi-head latent attention in its naive form and RoPE with YaRN on interleaved pairs, one token at a time.
 * **Source:** DeepSeek-V2 report 2.1, eq. 9–19; DeepSeek-V3 report 2.1.1; Peng et al. 2023 (arXiv 2309.00071).
 */

import type { ModelConfig } from "../../src/config/index.ts";
import { dot, multiply, plus, rmsNorm, softmax, times, type Vector } from "./arrays.ts";
import type { LayerReader } from "./weights.ts";

const LATENT_EPS = 1e-6;

/** f(m) = 0.1 · m · ln(factor) + 1 */
function yarnScale(config: ModelConfig, m: number): number {
  return config.ropeFactor > 1 ? 0.1 * m * Math.log(config.ropeFactor) + 1 : 1;
}

function frequency(config: ModelConfig, i: number): number {
  const { qkRopeHeadDim: r, ropeTheta: theta, ropeFactor, originalSeqLen, betaFast, betaSlow } = config;
  const base = theta ** ((-2 * i) / r);
  if (ropeFactor === 1) return base;
  const corr = (rho: number): number => (r * Math.log(originalSeqLen / (2 * Math.PI * rho))) / (2 * Math.log(theta));
  const low = Math.max(Math.floor(corr(betaFast)), 0);
  const high = Math.min(Math.ceil(corr(betaSlow)), r - 1);
  const span = low === high ? 0.001 : high - low;
  const ramp = Math.min(Math.max((i - low) / span, 0), 1);
  return (base / ropeFactor) * ramp + base * (1 - ramp);
}

/** Rotates the pairs (2i, 2i + 1). */
function rotate(config: ModelConfig, x: Vector, position: number): number[] {
  const scale = yarnScale(config, config.mscale) / yarnScale(config, config.mscaleAllDim);
  return x.map((value, j) => {
    const angle = position * frequency(config, Math.floor(j / 2));
    const partner = j % 2 === 0 ? -x[j + 1]! : x[j - 1]!;
    return scale * (value * Math.cos(angle) + partner * Math.sin(angle));
  });
}

/** What later tokens see of one token, and its own queries; all by head but the shared rope key. */
interface Projected {
  readonly qNope: number[][];
  readonly qRope: number[][];
  readonly kNope: number[][];
  readonly kRope: number[];
  readonly v: number[][];
}

function project(config: ModelConfig, at: LayerReader, x: Vector, position: number): Projected {
  const { nHeads, qLoraRank, kvLoraRank, qkNopeHeadDim: p, qkRopeHeadDim: r, vHeadDim: u } = config;
  const q =
    qLoraRank === 0
      ? multiply(at.matrix("attn.wq"), x)
      : multiply(
          at.matrix("attn.wq_b"),
          rmsNorm(multiply(at.matrix("attn.wq_a"), x), at.vector("attn.q_norm"), LATENT_EPS),
        );
  const compressed = multiply(at.matrix("attn.wkv_a"), x);
  const latent = rmsNorm(compressed.slice(0, kvLoraRank), at.vector("attn.kv_norm"), LATENT_EPS);
  const heads = Array.from({ length: nHeads }, (_, h) => h);
  const qOf = (h: number): number[] => q.slice(h * (p + r), (h + 1) * (p + r));
  const wkvB = at.matrix("attn.wkv_b");
  return {
    qNope: heads.map((h) => qOf(h).slice(0, p)),
    qRope: heads.map((h) => rotate(config, qOf(h).slice(p), position)),
    kNope: heads.map((h) => multiply(wkvB, latent, h * (p + u), p)),
    kRope: rotate(config, compressed.slice(kvLoraRank), position),
    v: heads.map((h) => multiply(wkvB, latent, h * (p + u) + p, u)),
  };
}

/** Each row of x [N][D] attends to the rows of its own document up to itself. */
export function attention(
  config: ModelConfig,
  at: LayerReader,
  x: readonly Vector[],
  { positions }: { positions: readonly number[] },
): number[][] {
  const { nHeads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config;
  const scale = yarnScale(config, config.mscaleAllDim) ** 2 / Math.sqrt(qkNopeHeadDim + qkRopeHeadDim);
  const tokens = x.map((row, i) => project(config, at, row, positions[i]!));
  return tokens.map((token, i) => {
    const visible = tokens.slice(i - positions[i]!, i + 1);
    const heads = Array.from({ length: nHeads }, (_, h) => {
      const scores = visible.map(
        ({ kNope, kRope }) => scale * (dot(token.qNope[h]!, kNope[h]!) + dot(token.qRope[h]!, kRope)),
      );
      return softmax(scores)
        .map((weight, j) => times(weight, visible[j]!.v[h]!))
        .reduce(plus, Array<number>(vHeadDim).fill(0));
    });
    return multiply(at.matrix("attn.wo"), heads.flat());
  });
}
