/** What an evaluated layout means for a run: rates, utilisation, device-hours. */

import type { Evaluation, MemoryParts, TrainingEvaluator } from "./training.ts";

export interface TrainingSummary {
  readonly memory: MemoryParts;
  readonly tokensPerStep: number;
  readonly tokensPerSec: number;
  readonly tokensPerSecPerDevice: number;
  readonly tokensPerDay: number;
  /** Of 10¹² tokens. */
  readonly deviceHoursPerTrillion: number;
  readonly flopsPerToken: number;
  /** Model FLOPs, causal and without recomputation, over the dense peak in bf16 (fp32 for recipes in fp32). */
  readonly mfu: number;
  /** The same with recomputation. */
  readonly hfu: number;
  readonly peakFlopsPerSec: number;
  /** Share of the step in which the pipeline waits. */
  readonly bubbleShare: number;
}

/** Rows of the sheet by the names of the summary. */
const ROWS = {
  tokensPerStep: "run.tokens",
  tokensPerSec: "run.rate",
  tokensPerSecPerDevice: "run.device_rate",
  tokensPerDay: "run.tokens_per_day",
  deviceHoursPerTrillion: "run.device_hours",
  flopsPerToken: "flops.training",
  mfu: "run.mfu",
  hfu: "run.hfu",
  peakFlopsPerSec: "peak.bf16",
  bubbleShare: "run.bubble_share",
} as const satisfies Record<keyof Omit<TrainingSummary, "memory">, string>;

export function summarise(evaluator: TrainingEvaluator, { layout, slowestStage }: Evaluation): TrainingSummary {
  const memory = evaluator.memoryParts(layout);
  const values = evaluator.read(layout, evaluator.stages(layout)[slowestStage]!, Object.values(ROWS));
  const rates = Object.fromEntries(Object.keys(ROWS).map((name, i) => [name, values[i]!]));
  return { ...(rates as unknown as Omit<TrainingSummary, "memory">), memory };
}
