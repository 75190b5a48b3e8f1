/**
 * Grouped-query attention, with one head of keys and values for every nHeads / nKvHeads queries; full multi-head
 * attention where the numbers are equal. The cache keeps rotated keys and values.
 *
 * Legend: N tokens, H query heads, G key heads, d head width.
 * **Source:** Ainslie et al. 2023 (arXiv 2305.13245); LLaMA (arXiv 2302.13971) for the whole-head rotation.
 */

import type { ModelConfig } from "../config/index.ts";
import { groupedAttention, rope, type Scope, type Tensor } from "../tensor/index.ts";
import type { Attention, CacheSlots, LayerCache, Sequences } from "./attention.ts";
import type { Linear } from "./linear.ts";

export interface GqaWeights {
  readonly wq: Linear;
  readonly wk: Linear;
  readonly wv: Linear;
  readonly wo: Linear;
}

interface Projected {
  /** [N, H · d], rotated. */
  readonly q: Tensor;
  /** [N, G · d], rotated. */
  readonly k: Tensor;
  /** [N, G · d] */
  readonly v: Tensor;
}

export class Gqa implements Attention {
  readonly #config: ModelConfig;
  readonly #weights: GqaWeights;

  constructor(config: ModelConfig, weights: GqaWeights) {
    this.#config = config;
    this.#weights = weights;
  }

  prefill(scope: Scope, x_ND: Tensor, at: Sequences, cache?: LayerCache & Pick<CacheSlots, "slots">): Tensor {
    const { nHeads: heads, nKvHeads: kvHeads, headDim, softmaxScale } = this.#config;
    const projected = this.#project(scope, x_ND, at);
    if (cache !== undefined) this.#write(scope, projected, cache);
    const inputs = { ...projected, seqStarts: at.seqStarts };
    return this.#weights.wo.apply(scope, groupedAttention(scope, inputs, { heads, kvHeads, headDim, softmaxScale }));
  }

  decode(scope: Scope, x_BD: Tensor, at: Sequences, cache: LayerCache & CacheSlots): Tensor {
    const { nHeads: heads, nKvHeads: kvHeads, headDim, softmaxScale: scale } = this.#config;
    const projected = this.#project(scope, x_BD, at);
    this.#write(scope, projected, cache);
    const { pool, blockSize, blockTable, seqLens } = cache;
    const out = scope.empty([x_BD.rows, heads * headDim]);
    const numbers = { batch: x_BD.rows, heads, kvHeads, headDim, blockSize, scale };
    scope.run(
      "gqaDecode",
      { q: projected.q, pool, blockTable, seqLens, out },
      { ...numbers, maxBlocks: blockTable.columns, poolRows: pool.rows },
    );
    return this.#weights.wo.apply(scope, out);
  }

  #project(scope: Scope, x_ND: Tensor, at: Sequences): Projected {
    const { nHeads, nKvHeads, headDim, qkRopeHeadDim: ropeDim, ropeInterleave: interleave } = this.#config;
    const { wq, wk, wv } = this.#weights;
    const rotate = (x: Tensor, heads: number): Tensor =>
      rope(scope, x, at.ropeTable, at.positions, { heads, headDim, ropeDim, interleave });
    return {
      q: rotate(wq.apply(scope, x_ND), nHeads),
      k: rotate(wk.apply(scope, x_ND), nKvHeads),
      v: wv.apply(scope, x_ND),
    };
  }

  /** A pool row is [keys ‖ values]. */
  #write(scope: Scope, { k, v }: Projected, { pool, slots }: LayerCache & Pick<CacheSlots, "slots">): void {
    const { columns: width, rows: n } = k;
    scope.run(
      "cacheWrite",
      { latent: k, rope: v, slots, pool },
      { n, latentDim: width, ropeDim: width, latentStride: width, ropeStride: width, poolRows: pool.rows },
    );
  }
}
