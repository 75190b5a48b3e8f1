/**
 * Multi-head latent attention. Keys and values come from one latent of kvLoraRank values per token; a rope key of
 * qkRopeHeadDim values is shared by all heads. `prefill` expands the latent (naive form) and serves training and prompts;
 * `decode` works on the latent itself (absorbed form) against a paged cache.
 *
 * Legend: N tokens, H heads, K = P + R query width, P no-position, R rope, U value, C latent.
 * **Source:** DeepSeek-V2 report 2.1, eq. 9–19; deepseek-ai/DeepSeek-V3 inference/model.py, MLA.
 */

import type { ModelConfig } from "../config/index.ts";
import { attention, rmsNorm, rope, split, type Parameter, type Scope, type Tensor } from "../tensor/index.ts";
import type { Attention, CacheSlots, LayerCache, Sequences } from "./attention.ts";
import type { Linear } from "./linear.ts";
import type { PerHeadLinear } from "./per-head.ts";

/** The norms on the latents use 1e-6 in every release, whatever rmsNormEps says. */
const LATENT_NORM_EPS = 1e-6;

export interface MlaWeights {
  /** Present when qLoraRank is 0. */
  readonly wq: Linear | null;
  readonly wqA: Linear | null;
  readonly qNorm: Parameter | null;
  readonly wqB: Linear | null;
  readonly wkvA: Linear;
  readonly kvNorm: Parameter;
  readonly wkvB: PerHeadLinear;
  readonly wo: Linear;
}

export class Mla implements Attention {
  readonly #config: ModelConfig;
  readonly #weights: MlaWeights;

  constructor(config: ModelConfig, weights: MlaWeights) {
    this.#config = config;
    this.#weights = weights;
  }

  prefill(scope: Scope, x_ND: Tensor, at: Sequences, cache?: LayerCache & Pick<CacheSlots, "slots">): Tensor {
    const { nHeads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, softmaxScale } = this.#config;
    const q = this.#queries(scope, x_ND, at);
    const { latent_NC, kRope_NR } = this.#latent(scope, x_ND, at);
    if (cache !== undefined) this.#write(scope, latent_NC, kRope_NR, cache.pool, cache.slots);
    const kv = this.#weights.wkvB.apply(scope, latent_NC);
    const out = attention(
      scope,
      { q, kv, kRope: kRope_NR, seqStarts: at.seqStarts },
      {
        heads: nHeads,
        nopeDim: qkNopeHeadDim,
        ropeDim: qkRopeHeadDim,
        valueDim: vHeadDim,
        softmaxScale,
      },
    );
    return this.#weights.wo.apply(scope, out);
  }

  decode(scope: Scope, x_BD: Tensor, at: Sequences, cache: LayerCache & CacheSlots): Tensor {
    const { nHeads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, softmaxScale } = this.#config;
    const q = this.#queries(scope, x_BD, at);
    const { latent_NC, kRope_NR } = this.#latent(scope, x_BD, at);
    this.#write(scope, latent_NC, kRope_NR, cache.pool, cache.slots);
    const qLatent = this.#weights.wkvB.absorbKeys(scope, q);
    const headDim = qkNopeHeadDim + qkRopeHeadDim;
    const u = scope.empty([x_BD.rows, nHeads * kvLoraRank]);
    const { pool, blockSize, blockTable, seqLens } = cache;
    scope.run(
      "mlaDecode",
      {
        qLatent,
        qRope: { handle: q.handle, offset: q.offset + qkNopeHeadDim, dtype: q.dtype },
        pool,
        blockTable,
        seqLens,
        out: u,
      },
      {
        batch: x_BD.rows,
        heads: nHeads,
        latentDim: kvLoraRank,
        ropeDim: qkRopeHeadDim,
        ropeRow: nHeads * headDim,
        ropeHead: headDim,
        blockSize,
        maxBlocks: blockTable.columns,
        poolRows: pool.rows,
        scale: softmaxScale,
      },
    );
    return this.#weights.wo.apply(scope, this.#weights.wkvB.expandValues(scope, u));
  }

  /** [N, H · K], the last R values of each head rotated. */
  #queries(scope: Scope, x_ND: Tensor, at: Sequences): Tensor {
    const { nHeads, qkNopeHeadDim, qkRopeHeadDim, ropeInterleave } = this.#config;
    const { wq, wqA, qNorm, wqB } = this.#weights;
    const q =
      wq !== null
        ? wq.apply(scope, x_ND)
        : wqB!.apply(scope, rmsNorm(scope, wqA!.apply(scope, x_ND), qNorm!, LATENT_NORM_EPS));
    return rope(scope, q, at.ropeTable, at.positions, {
      heads: nHeads,
      headDim: qkNopeHeadDim + qkRopeHeadDim,
      ropeDim: qkRopeHeadDim,
      interleave: ropeInterleave,
    });
  }

  /** The normalised latent [N, C] and the rotated shared key [N, R]: just what the cache keeps. */
  #latent(scope: Scope, x_ND: Tensor, at: Sequences): { latent_NC: Tensor; kRope_NR: Tensor } {
    const { kvLoraRank, qkRopeHeadDim, ropeInterleave } = this.#config;
    const [c, k] = split(scope, this.#weights.wkvA.apply(scope, x_ND), [kvLoraRank, qkRopeHeadDim]);
    const latent_NC = rmsNorm(scope, c!, this.#weights.kvNorm, LATENT_NORM_EPS);
    const attrs = { heads: 1, headDim: qkRopeHeadDim, ropeDim: qkRopeHeadDim, interleave: ropeInterleave };
    return { latent_NC, kRope_NR: rope(scope, k!, at.ropeTable, at.positions, attrs) };
  }

  #write(scope: Scope, latent_NC: Tensor, kRope_NR: Tensor, pool: Tensor, slots: Tensor): void {
    const { kvLoraRank: latentDim, qkRopeHeadDim: ropeDim } = this.#config;
    scope.run(
      "cacheWrite",
      { latent: latent_NC, rope: kRope_NR, slots, pool },
      { n: latent_NC.rows, latentDim, ropeDim, latentStride: latentDim, ropeStride: ropeDim, poolRows: pool.rows },
    );
  }
}
