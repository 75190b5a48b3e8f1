/**
 * The paged cache: for each layer a pool of fixed blocks of rows, a latent with its rope key or keys and values, and one
 * block table for all layers. A sequence is sure of the whole blocks that it may need from when it is opened, takes them
 * as it grows and gives them back when it ends. The pools hold as many blocks as open sequences were ever sure of.
 */

import type { ModelConfig } from "../config/index.ts";
import { invariant } from "../core/errors.ts";
import { cacheWidth, type PagedCache } from "../model/index.ts";
import type { Scope, Tensor } from "../tensor/index.ts";

export const BLOCK_SIZE = 64;

export interface CachedSequence {
  /** Block numbers in order. */
  readonly blocks: number[];
  /** Most blocks that it can have. */
  readonly maxBlocks: number;
  /** Tokens whose rows are written. */
  length: number;
}

export class KvCache {
  readonly #scope: Scope;
  readonly #config: ModelConfig;
  readonly #open = new Set<CachedSequence>();
  readonly #free: number[] = [];
  /** Blocks in all, and those that open sequences are sure of. */
  #blocks = 0;
  #reserved = 0;
  #paged: PagedCache = { pools: [], blockSize: BLOCK_SIZE };

  /** @param scope owner of the pools, which are empty until a sequence is opened. */
  constructor(scope: Scope, config: ModelConfig) {
    this.#scope = scope;
    this.#config = config;
  }

  /** The pools as they are: another object once they have grown. */
  get paged(): PagedCache {
    return this.#paged;
  }

  /** Blocks of each pool. */
  get blocks(): number {
    return this.#blocks;
  }

  /**
   * A sequence with room for `tokens`.
   *
   * @throws MemoryError when the pools would have to grow and cannot; the open sequences are as before.
   */
  open(tokens: number): CachedSequence {
    const maxBlocks = Math.ceil(tokens / BLOCK_SIZE);
    if (this.#reserved + maxBlocks > this.#blocks) this.#grow(this.#reserved + maxBlocks);
    this.#reserved += maxBlocks;
    const sequence = { blocks: [], maxBlocks, length: 0 };
    this.#open.add(sequence);
    return sequence;
  }

  /** The pool rows that the next `count` tokens of a sequence take. */
  extend(sequence: CachedSequence, count: number): Int32Array {
    const needed = Math.ceil((sequence.length + count) / BLOCK_SIZE);
    invariant(this.#open.has(sequence) && needed <= sequence.maxBlocks, "an open sequence has room for its tokens");
    while (sequence.blocks.length < needed) sequence.blocks.push(this.#free.pop()!);
    const rows = Int32Array.from({ length: count }, (_, i) => rowOf(sequence, sequence.length + i));
    sequence.length += count;
    return rows;
  }

  close(sequence: CachedSequence): void {
    invariant(this.#open.delete(sequence), "a sequence is closed once");
    this.#reserved -= sequence.maxBlocks;
    this.#free.push(...sequence.blocks.toReversed());
  }

  /** Larger pools. Without an open sequence the old ones go first; else their rows are copied. */
  #grow(blocks: number): void {
    if (this.#open.size === 0) this.#release();
    using scope = this.#scope.child();
    const { nLayers } = this.#config;
    const shape = [blocks * BLOCK_SIZE, cacheWidth(this.#config)];
    const pools = Array.from({ length: nLayers }, (_, i) => scope.empty(shape, scope.dtype, `kv pool ${i}`));
    for (const [i, old] of this.#paged.pools.entries()) {
      copyRows(scope, old, pools[i]!);
      this.#scope.drop(old);
    }
    for (const pool of pools) scope.keep(pool);
    // The last of the list, the lowest number, is taken first.
    for (let block = this.#blocks; block < blocks; block++) this.#free.unshift(block);
    this.#paged = { pools, blockSize: BLOCK_SIZE };
    this.#blocks = blocks;
  }

  #release(): void {
    for (const pool of this.#paged.pools) this.#scope.drop(pool);
    this.#paged = { pools: [], blockSize: BLOCK_SIZE };
    this.#free.length = 0;
    this.#blocks = 0;
  }
}

function copyRows(scope: Scope, from: Tensor, to: Tensor): void {
  const { rows, columns: cols } = from;
  scope.run("copy2d", { x: from, y: to }, { rows, cols, xStride: cols, yStride: cols, accumulate: 0 });
}

function rowOf(sequence: CachedSequence, position: number): number {
  return sequence.blocks[Math.floor(position / BLOCK_SIZE)]! * BLOCK_SIZE + (position % BLOCK_SIZE);
}
