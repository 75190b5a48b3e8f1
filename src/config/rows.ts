/**
 * The one list of all parameters. Types, validation, name maps, printing and explanations read these rows and nothing
 * else. The values of a section are typed by its rows; what always follows from them is added by `resolve`.
 */

import { ADAPTER_ROWS } from "./adapter-rows.ts";
import { ALIGNMENT_ROWS } from "./alignment-rows.ts";
import { DATA_ROWS } from "./data-rows.ts";
import { DISTILLATION_ROWS } from "./distillation-rows.ts";
import { FAMILY_ROWS } from "./family-rows.ts";
import { GENERATION_ROWS } from "./generation-rows.ts";
import { HARDWARE_ROWS } from "./hardware-rows.ts";
import { MODEL_ROWS } from "./model-rows.ts";
import { PARALLEL_ROWS } from "./parallel-rows.ts";
import { QUANTIZATION_ROWS } from "./quantization-rows.ts";
import type { Rows, Section, Settings } from "./row.ts";
import { RUNTIME_ROWS } from "./runtime-rows.ts";
import { SERVING_ROWS } from "./serving-rows.ts";
import { TRAINING_ROWS } from "./training-rows.ts";
import { TUNING_ROWS } from "./tuning-rows.ts";
import { VARIANT_ROWS } from "./variant-rows.ts";

const MODEL = { ...MODEL_ROWS, ...FAMILY_ROWS, ...VARIANT_ROWS } as const;

export const ROWS = {
  model: MODEL,
  training: TRAINING_ROWS,
  data: DATA_ROWS,
  adapter: ADAPTER_ROWS,
  distillation: DISTILLATION_ROWS,
  alignment: ALIGNMENT_ROWS,
  quantization: QUANTIZATION_ROWS,
  parallel: PARALLEL_ROWS,
  generation: GENERATION_ROWS,
  serving: SERVING_ROWS,
  runtime: RUNTIME_ROWS,
  hardware: HARDWARE_ROWS,
  tuning: TUNING_ROWS,
} as const satisfies Record<Section, Rows>;

export type ModelSettings = Settings<typeof MODEL>;
export type TrainingSettings = Settings<typeof TRAINING_ROWS>;
export type ParallelConfig = Settings<typeof PARALLEL_ROWS>;

/** The model and the numbers that follow from its settings. */
export interface ModelConfig extends ModelSettings {
  /** Width of a query or key head: qkNopeHeadDim + qkRopeHeadDim, which is headDim where attention is not mla. */
  readonly qkHeadDim: number;
  /** Factor on attention scores: qkHeadDim^−½ · f(mscaleAllDim)². */
  readonly softmaxScale: number;
  /** Factor on cos and sin: f(mscale) / f(mscaleAllDim). */
  readonly ropeScale: number;
}

/** The settings of a model without what follows from them. */
export function modelSettings(model: ModelConfig): ModelSettings {
  const { qkHeadDim: _q, softmaxScale: _s, ropeScale: _r, ...settings } = model;
  return settings;
}

/** The training run and the numbers that follow from its settings. */
export interface TrainingConfig extends TrainingSettings {
  /** Tokens of one optimizer step: batchSize · seqLen. */
  readonly tokensPerStep: number;
}

export interface GenerationConfig extends Settings<typeof GENERATION_ROWS> {}
export interface RuntimeConfig extends Settings<typeof RUNTIME_ROWS> {}

/** Settings as they are written, before anything is derived. */
export type AllSettings = { readonly [S in Section]: Settings<(typeof ROWS)[S]> };

export interface RunConfig extends Omit<AllSettings, "model" | "training" | "generation" | "runtime"> {
  readonly model: ModelConfig;
  readonly training: TrainingConfig;
  readonly generation: GenerationConfig;
  readonly runtime: RuntimeConfig;
}
