/** The largest batch and sequence that fit a device: memory only grows with the micro-batch, so doubling and halving find it. */

import type { Layout, Recompute } from "./layout.ts";
import { numMicroBatches } from "./layout.ts";
import { SEARCH_GRID } from "./search.ts";
import type { TrainingEvaluator } from "./training.ts";

export interface FitRow {
  readonly seqLen: number;
  readonly recompute: Recompute;
  /** Sequences of the largest micro-batch that fits; 0 when not even one does. */
  readonly microBatchSize: number;
  readonly memoryBytes: number;
}

/** Larger micro-batches than this gain nothing. */
const MOST_SEQUENCES = 2 ** 20;

/**
 * For each sequence length and recompute setting the largest micro-batch that fits.
 *
 * @param layout - its degrees and micro-batches per step are kept; the global batch follows the micro-batch.
 */
export function fitTraining(evaluator: TrainingEvaluator, layout: Layout, seqLens: readonly number[]): FitRow[] {
  return seqLens.flatMap((seqLen) =>
    SEARCH_GRID.recompute.map((recompute) => largestMicroBatch(evaluator, { ...layout, seqLen, recompute })),
  );
}

function largestMicroBatch(evaluator: TrainingEvaluator, layout: Layout): FitRow {
  const micros = numMicroBatches(layout);
  const memoryOf = (size: number): number => {
    const globalBatchSize = micros * size * layout.dp;
    return evaluator.evaluate({ ...layout, microBatchSize: size, globalBatchSize }).memoryBytes;
  };
  const fits = (size: number): boolean => memoryOf(size) <= evaluator.limitBytes;
  const { seqLen, recompute } = layout;
  if (!fits(1)) return { seqLen, recompute, microBatchSize: 0, memoryBytes: memoryOf(1) };
  let low = 1;
  while (low < MOST_SEQUENCES && fits(2 * low)) low *= 2;
  let high = 2 * low;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (fits(middle)) low = middle;
    else high = middle;
  }
  return { seqLen, recompute, microBatchSize: low, memoryBytes: memoryOf(low) };
}

/** The row with the most tokens of a micro-batch; of equal ones the first, which recomputes least. */
export function largestFit(rows: readonly FitRow[]): FitRow | undefined {
  return rows
    .filter(({ microBatchSize }) => microBatchSize > 0)
    .toSorted((a, b) => b.seqLen * b.microBatchSize - a.seqLen * a.microBatchSize)[0];
}
