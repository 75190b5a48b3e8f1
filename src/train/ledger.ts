/** What a training step needs of memory, from the operations' rows alone: shapes, what is saved, what is workspace. */

import type { RunConfig } from "../config/index.ts";
import type { TokenStream } from "../data/index.ts";
import { createPlanningBackend } from "../kernels/index.ts";
import { bytesOf } from "../core/dtype.ts";
import { Trainer } from "./trainer.ts";

/** Bytes by purpose. */
export interface Ledger {
  readonly weights: number;
  readonly gradients: number;
  readonly moments: number;
  /** bf16 copies for products. */
  readonly copies: number;
  /** Saved activations, gradients in flight and workspace at the worst moment of a step. */
  readonly activations: number;
  /** The sum: the peak of the allocator. */
  readonly peak: number;
}

/** Plays one step without memory or arithmetic. Costs no more than the step's TypeScript. */
export async function trainingLedger(config: RunConfig): Promise<Ledger> {
  const backend = createPlanningBackend();
  const stream = emptyText((config.training.batchSize + 2) * config.training.seqLen);
  const tokenBytes = new Uint8Array(config.model.vocabSize).fill(1);
  using trainer = new Trainer({ backend, config, train: stream, validation: stream, tokenBytes, now: () => 0 });
  await trainer.step();
  const { peakBytes: peak } = backend.stats();
  const parameters = [...trainer.model.parameters];
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  const weights = sum(parameters.map(({ value }) => value.bytes));
  const gradients = sum(trainer.model.parameters.trainable.map(({ value }) => value.bytes));
  const moments = sum(trainer.optimizer.moments.map(({ m, v }) => m.bytes + v.bytes));
  const copies = sum(parameters.map(({ copy }) => (copy === null ? 0 : bytesOf(copy.dtype, copy.size))));
  return { weights, gradients, moments, copies, peak, activations: peak - weights - gradients - moments - copies };
}

/** One long document. */
function emptyText(length: number): TokenStream {
  return {
    length,
    read: (_start, count) => new Int32Array(count),
    documentStarts: (from) => (from === 0 ? [0] : []),
  };
}
