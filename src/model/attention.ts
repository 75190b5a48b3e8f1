/** What every kind of attention is to a layer: a map of rows that knows sequences, with or without a paged cache. */

import type { ModelConfig } from "../config/index.ts";
import type { Scope, Tensor } from "../tensor/index.ts";

/** Where the tokens of a call stand. All i32. */
export interface Sequences {
  /** [N], restarting in each sequence. */
  readonly positions: Tensor;
  /** [S+1] rows at which sequences start, then N. */
  readonly seqStarts: Tensor;
  /** [maxPos, R]. */
  readonly ropeTable: Tensor;
}

/** One layer's share of the paged cache. Rows are `cacheWidth` wide. */
export interface LayerCache {
  readonly pool: Tensor;
  readonly blockSize: number;
}

/** The cache side of a call. All i32. */
export interface CacheSlots {
  /** [N] pool rows that receive this call's tokens. */
  readonly slots: Tensor;
  /** [B, maxBlocks]. */
  readonly blockTable: Tensor;
  /** [B] cached tokens per sequence, this call's token included. */
  readonly seqLens: Tensor;
}

export interface Attention {
  /** x [N, D] → [N, D], every token attending to its own sequence in this call; fills the cache when one is given. */
  prefill(scope: Scope, x_ND: Tensor, at: Sequences, cache?: LayerCache & Pick<CacheSlots, "slots">): Tensor;
  /** x [B, D] → [B, D], one new token per sequence against the cache. */
  decode(scope: Scope, x_BD: Tensor, at: Sequences, cache: LayerCache & CacheSlots): Tensor;
}

/** Values that one token leaves in the cache of a layer: latent and rope key with mla, keys and values with gqa. */
export function cacheWidth(config: ModelConfig): number {
  const { attention, kvLoraRank, qkRopeHeadDim, nKvHeads, headDim } = config;
  return attention === "mla" ? kvLoraRank + qkRopeHeadDim : 2 * nKvHeads * headDim;
}
