/**
 * The one list of all parameters. Types, validation, name maps, printing and explanations read these rows and nothing
 * else. The values of a section are typed by its rows; what always follows from them is added by `resolve`.
 */

import { GENERATION_ROWS } from "./generation-rows.ts";
import { MODEL_ROWS } from "./model-rows.ts";
import type { Rows, Section, Settings } from "./row.ts";
import { RUNTIME_ROWS } from "./runtime-rows.ts";
import { TRAINING_ROWS } from "./training-rows.ts";

export const ROWS = {
  model: MODEL_ROWS,
  training: TRAINING_ROWS,
  generation: GENERATION_ROWS,
  runtime: RUNTIME_ROWS,
} as const satisfies Record<Section, Rows>;

export type ModelSettings = Settings<typeof MODEL_ROWS>;
export type TrainingSettings = Settings<typeof TRAINING_ROWS>;

/** The model and the numbers that follow from its settings. */
export interface ModelConfig extends ModelSettings {
  /** Width of a query or key head: qkNopeHeadDim + qkRopeHeadDim. */
  readonly qkHeadDim: number;
  /** Factor on attention scores: qkHeadDim^−½ · f(mscaleAllDim)². */
  readonly softmaxScale: number;
  /** Factor on cos and sin: f(mscale) / f(mscaleAllDim). */
  readonly ropeScale: number;
}

/** The training run and the numbers that follow from its settings. */
export interface TrainingConfig extends TrainingSettings {
  /** Passes whose gradients are summed for one step: batchSize / microBatchSize. */
  readonly gradAccumSteps: number;
  /** Tokens of one optimizer step: batchSize · seqLen. */
  readonly tokensPerStep: number;
}

export interface GenerationConfig extends Settings<typeof GENERATION_ROWS> {}
export interface RuntimeConfig extends Settings<typeof RUNTIME_ROWS> {}

export interface RunConfig {
  readonly model: ModelConfig;
  readonly training: TrainingConfig;
  readonly generation: GenerationConfig;
  readonly runtime: RuntimeConfig;
}
