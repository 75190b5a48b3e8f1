/** Reading a prompt into the cache, and what a whole request will take of memory. */

import { createPlanningBackend } from "../kernels/index.ts";
import type { DeepSeekModel } from "../model/index.ts";
import { Scope, type Tensor } from "../tensor/index.ts";
import { DecodeStep } from "./decode-step.ts";
import { KvCache, type CachedSequence } from "./kv-cache.ts";

interface PrefillOptions {
  readonly cache: KvCache;
  /** Has room for the ids. */
  readonly sequence: CachedSequence;
  /** [maxPos, R] */
  readonly ropeTable: Tensor;
}

/** Logits [1, V] after the last id; the ids stand in the cache then. */
export function prefill(scope: Scope, model: DeepSeekModel, ids: readonly number[], options: PrefillOptions): Tensor {
  const { cache, sequence, ropeTable } = options;
  const ints = (values: ArrayLike<number>): Tensor => scope.from(Int32Array.from(values), [values.length], "i32");
  const slots = ints(cache.extend(sequence, ids.length));
  const at = { positions: ints(ids.map((_, i) => i)), seqStarts: ints([0, ids.length]), ropeTable };
  return model.prefill(scope, ints(ids), at, { ...cache.paged, slots });
}

/**
 * Bytes of the cache and of the activations at their peak, for a prompt and what is written behind it: the request is run
 * on a backend that only keeps account.
 *
 * @param tokens - of prompt and answer together.
 */
export function countRequestBytes(model: DeepSeekModel, promptTokens: number, tokens: number): number {
  const backend = createPlanningBackend();
  using scope = Scope.root(backend);
  const cache = new KvCache(scope, model.config);
  const sequence = cache.open(tokens);
  const ropeTable = scope.empty([tokens, model.config.qkRopeHeadDim]);
  {
    using inner = scope.child();
    prefill(inner, model, new Array<number>(promptTokens).fill(0), { cache, sequence, ropeTable });
  }
  const { paged, blocks: maxBlocks } = cache;
  using _ = new DecodeStep(scope, { model, sequences: 1, cache: paged, maxBlocks, ropeTable });
  return backend.stats().peakBytes;
}
