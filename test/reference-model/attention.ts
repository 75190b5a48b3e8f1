/**
 * Multi-head latent attention in its naive form, grouped-query attention, and RoPE with YaRN, one token at a time.
 * **Source:** DeepSeek-V2 report 2.1, eq. 9–19; Ainslie et al. 2023 (arXiv 2305.13245); Peng et al. 2023 (arXiv 2309.00071).
 */

import type { ModelConfig } from "../../src/config/index.ts";
import { dot, multiply, plus, rmsNorm, softmax, times, type Vector } from "./arrays.ts";
import type { Faults } from "./faults.ts";
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

/** Rotates the pairs (2i, 2i + 1), or (i, i + r/2) without interleaving. */
function rotate(config: ModelConfig, x: Vector, position: number): number[] {
  const scale = yarnScale(config, config.mscale) / yarnScale(config, config.mscaleAllDim);
  const half = x.length / 2;
  return x.map((value, j) => {
    const [pair, isFirst] = config.ropeInterleave ? [j >> 1, j % 2 === 0] : [j % half, j < half];
    const step = config.ropeInterleave ? 1 : half;
    const angle = position * frequency(config, pair);
    const partner = isFirst ? -x[j + step]! : x[j - step]!;
    return scale * (value * Math.cos(angle) + partner * Math.sin(angle));
  });
}

/** The queries, keys and values of one token, rotated, each for every query head. */
interface Projected {
  readonly q: number[][];
  readonly k: number[][];
  readonly v: number[][];
}

function cut(x: Vector, count: number): number[][] {
  const width = x.length / count;
  return Array.from({ length: count }, (_, h) => x.slice(h * width, (h + 1) * width));
}

function projectLatent(
  config: ModelConfig,
  at: LayerReader,
  x: Vector,
  { position, faults }: { position: number; faults: Faults },
): Projected {
  const { nHeads, qLoraRank, kvLoraRank, qkNopeHeadDim: p, vHeadDim: u } = config;
  const q =
    qLoraRank === 0
      ? multiply(at.matrix("attn.wq"), x)
      : multiply(
          at.matrix("attn.wq_b"),
          rmsNorm(multiply(at.matrix("attn.wq_a"), x), at.vector("attn.q_norm"), LATENT_EPS),
        );
  const compressed = multiply(at.matrix("attn.wkv_a"), x);
  const normed = compressed.slice(0, faults.has("wide kv norm") ? compressed.length : kvLoraRank);
  const weight = [...at.vector("attn.kv_norm"), ...Array<number>(normed.length - kvLoraRank).fill(1)];
  const latent = rmsNorm(normed, weight, LATENT_EPS).slice(0, kvLoraRank);
  const kRope = rotate(config, compressed.slice(kvLoraRank), position);
  const wkvB = at.matrix("attn.wkv_b");
  const heads = Array.from({ length: nHeads }, (_, h) => h);
  return {
    q: cut(q, nHeads).map((head) => [...head.slice(0, p), ...rotate(config, head.slice(p), position)]),
    k: heads.map((h) => [...multiply(wkvB, latent, h * (p + u), p), ...kRope]),
    v: heads.map((h) => multiply(wkvB, latent, h * (p + u) + p, u)),
  };
}

function projectGrouped(config: ModelConfig, at: LayerReader, x: Vector, position: number): Projected {
  const { nHeads, nKvHeads } = config;
  const heads = (name: string, count: number): number[][] => cut(multiply(at.matrix(`attn.${name}`), x), count);
  const repeated = (list: number[][]): number[][] => list.flatMap((head) => Array(nHeads / nKvHeads).fill(head));
  return {
    q: heads("wq", nHeads).map((head) => rotate(config, head, position)),
    k: repeated(heads("wk", nKvHeads).map((head) => rotate(config, head, position))),
    v: repeated(heads("wv", nKvHeads)),
  };
}

/** Each row of x [N][D] attends to the rows of its own document up to itself. */
export function attention(
  config: ModelConfig,
  at: LayerReader,
  x: readonly Vector[],
  { positions, faults }: { positions: readonly number[]; faults: Faults },
): number[][] {
  const { nHeads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config;
  const scale = yarnScale(config, config.mscaleAllDim) ** 2 / Math.sqrt(qkNopeHeadDim + qkRopeHeadDim);
  const tokens = x.map((row, i) => {
    const position = positions[i]!;
    return config.attention === "mla"
      ? projectLatent(config, at, row, { position, faults })
      : projectGrouped(config, at, row, position);
  });
  return tokens.map((token, i) => {
    const visible = tokens.slice(i - positions[i]!, i + 1);
    const heads = Array.from({ length: nHeads }, (_, h) => {
      const scores = visible.map(({ k }) => scale * dot(token.q[h]!, k[h]!));
      return softmax(scores)
        .map((weight, j) => times(weight, visible[j]!.v[h]!))
        .reduce(plus, Array<number>(vHeadDim).fill(0));
    });
    return multiply(at.matrix("attn.wo"), heads.flat());
  });
}
