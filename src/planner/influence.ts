/** What a parameter moves: the numbers of a model recomputed with the parameter at other values. */

import { blueprint, countModule } from "../blueprint/index.ts";
import {
  pathOf,
  resolveConfig,
  rowOf,
  settingOf,
  type ConfigInput,
  type ParameterName,
  type ResolvedConfig,
  type Value,
} from "../config/index.ts";
import { FathomError } from "../core/errors.ts";
import { evaluatorOfConfig } from "./configured-evaluator.ts";
import { configuredLayout } from "./configured-layout.ts";
import { kvBytesPerToken } from "./kv-cache.ts";
import { fullRecomputeShare } from "./layout.ts";
import { flopsPerToken } from "./work.ts";

/** What a configuration costs. */
export interface Costs {
  /** Parameters and buffers of the main model. */
  readonly total: number;
  readonly activated: number;
  /** Bytes on the fullest device in training: states, activations and logits. */
  readonly trainingBytes: number;
  /** Bytes that all layers cache for one token. */
  readonly kvBytesPerToken: number;
  /** Forward and backward work of one token in training, recomputation included. */
  readonly flopsPerToken: number;
}

/** A value that was tried: its costs, or why it is not legal. */
export type Trial =
  | { readonly value: Value; readonly costs: Costs }
  | { readonly value: Value; readonly refused: string };

export interface Influence {
  readonly now: Trial;
  /** Half and double of a number; the other choices of a choice. */
  readonly trials: readonly Trial[];
}

/**
 * The costs of a model with a parameter as it is, halved and doubled. Training is one sequence per pass on as many
 * devices as the configuration's layout has, so one device unless it says otherwise.
 */
export function parameterInfluence(base: string | ConfigInput, parameter: ParameterName): Influence {
  const value = settingOf(resolveConfig(base, ONE_SEQUENCE), parameter);
  return {
    now: tryValue(base, {}, value),
    trials: otherValues(parameter, value).map((other) => tryValue(base, { [pathOf(parameter)]: other }, other)),
  };
}

const ONE_SEQUENCE = { "training.micro_batch_size": 1 };

function otherValues(parameter: ParameterName, value: Value): Value[] {
  const row = rowOf(parameter);
  if (typeof value === "number") {
    const half = row.type === "integer" ? Math.floor(value / 2) : value / 2;
    return [half, value * 2].filter((other) => other !== value);
  }
  if (typeof value === "boolean") return [!value];
  return row.type === "choice" ? row.choices!.filter((choice) => choice !== value) : [];
}

function tryValue(base: string | ConfigInput, change: Readonly<Record<string, Value>>, value: Value): Trial {
  try {
    return { value, costs: costsOf(resolveConfig(base, { ...ONE_SEQUENCE, ...change })) };
  } catch (error) {
    if (error instanceof FathomError) return { value, refused: error.message };
    throw error;
  }
}

/** @throws ConfigError when the layout is not legal for the model. */
function costsOf(config: ResolvedConfig): Costs {
  const plan = blueprint(config.model);
  const evaluator = evaluatorOfConfig(config, { plan });
  const { shape } = evaluator.job;
  const layout = configuredLayout(config);
  const { seqLen, recompute } = layout;
  const { total, activated } = countModule(plan.parameters.filter(({ mtp }) => !mtp));
  const work = flopsPerToken(shape, {
    seqLen,
    fullRecompute: fullRecomputeShare(recompute),
    selectiveRecompute: recompute === "selective",
  });
  return {
    total,
    activated,
    trainingBytes: evaluator.evaluate(layout).memoryBytes,
    kvBytesPerToken: kvBytesPerToken(shape, config.quantization.kvCacheDtype, config.runtime.attnImpl === "naive"),
    flopsPerToken: work.training + work.recompute,
  };
}
