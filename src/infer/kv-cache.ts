/**
 * The paged latent cache: for each layer a pool of fixed blocks of [kvLoraRank ‖ qkRopeHeadDim] rows, one block table for
 * all layers. A sequence owns whole blocks and gives them back when it ends.
 */

import type { ModelConfig } from "../config/index.ts";
import { MemoryError, invariant } from "../core/errors.ts";
import type { PagedCache } from "../model/index.ts";
import type { Scope } from "../tensor/index.ts";

export const BLOCK_SIZE = 64;

export interface CachedSequence {
  /** Block numbers in order. */
  readonly blocks: number[];
  /** Tokens whose rows are written. */
  length: number;
}

export class KvCache {
  readonly paged: PagedCache;
  readonly #free: number[];
  /** Of all layers together. */
  readonly #blockBytes: number;

  /** Pools for `tokens` cached tokens in all, rounded up to whole blocks, owned by `scope`. */
  constructor(scope: Scope, config: ModelConfig, tokens: number) {
    const blocks = Math.ceil(tokens / BLOCK_SIZE);
    const shape = [blocks * BLOCK_SIZE, config.kvLoraRank + config.qkRopeHeadDim];
    const pools = Array.from({ length: config.nLayers }, (_, i) => scope.empty(shape, scope.dtype, `kv pool ${i}`));
    this.paged = { pools, blockSize: BLOCK_SIZE };
    this.#blockBytes = pools.reduce((sum, { bytes }) => sum + bytes, 0) / blocks;
    this.#free = Array.from({ length: blocks }, (_, i) => blocks - 1 - i);
  }

  open(): CachedSequence {
    return { blocks: [], length: 0 };
  }

  /**
   * Room for `count` more tokens: the pool rows that they take.
   *
   * @throws MemoryError when the pool has no free block left; the sequence is as before.
   */
  extend(sequence: CachedSequence, count: number): Int32Array {
    const needed = Math.ceil((sequence.length + count) / BLOCK_SIZE) - sequence.blocks.length;
    if (needed > this.#free.length) {
      const hint = "end a sequence or open the engine with a larger cache";
      throw new MemoryError("kv cache", needed * this.#blockBytes, this.#free.length * this.#blockBytes, hint);
    }
    for (let i = 0; i < needed; i++) sequence.blocks.push(this.#free.pop()!);
    const rows = Int32Array.from({ length: count }, (_, i) => rowOf(sequence, sequence.length + i));
    sequence.length += count;
    return rows;
  }

  close(sequence: CachedSequence): void {
    this.#free.push(...sequence.blocks.toReversed());
    sequence.blocks.length = 0;
    sequence.length = 0;
  }
}

function rowOf(sequence: CachedSequence, position: number): number {
  const block = sequence.blocks[Math.floor(position / BLOCK_SIZE)];
  invariant(block !== undefined, "a cached position lies in a block of its sequence");
  return block * BLOCK_SIZE + (position % BLOCK_SIZE);
}
