/** A batch on the backend. */

import type { Batch } from "../data/index.ts";
import type { TrainingBatch } from "../model/index.ts";
import type { Scope, Tensor } from "../tensor/index.ts";

export function uploadBatch(scope: Scope, batch: Batch, ropeTable: Tensor): TrainingBatch {
  const ints = (values: Int32Array): Tensor => scope.from(values, [values.length], "i32");
  return {
    tokens: ints(batch.tokens),
    targets: ints(batch.targets),
    positions: ints(batch.positions),
    seqStarts: ints(batch.seqStarts),
    ropeTable,
    mtp: batch.mtpTokens.map((tokens, k) => ({ tokens: ints(tokens), targets: ints(batch.mtpTargets[k]!) })),
  };
}

/** Row starts of the windows of a batch: the segments of the balance loss. */
export function windowStarts(scope: Scope, rows: number, seqLen: number): Tensor {
  const count = Math.ceil(rows / seqLen);
  const starts = Int32Array.from({ length: count + 1 }, (_, i) => Math.min(rows, i * seqLen));
  return scope.from(starts, [count + 1], "i32");
}
