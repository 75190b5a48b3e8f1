/** What a parameter moves: the numbers of a model recomputed with the parameter at other values. */

import { countModule, outline } from "../blueprint/index.ts";
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
import { configuredJob } from "./configured-evaluator.ts";
import { configuredLayout } from "./configured-layout.ts";
import { kvBytesPerToken } from "./kv-cache.ts";
import { layoutCosts } from "./training.ts";

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
  const config = resolveConfig(base, ONE_SEQUENCE);
  const value = settingOf(config, parameter);
  const changed = (other: Value) => resolveConfig(base, { ...ONE_SEQUENCE, [pathOf(parameter)]: other });
  return {
    now: tryValue(value, () => config),
    trials: otherValues(parameter, value).map((other) => tryValue(other, () => changed(other))),
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

function tryValue(value: Value, resolve: () => ResolvedConfig): Trial {
  try {
    return { value, costs: costsOf(resolve()) };
  } catch (error) {
    if (error instanceof FathomError) return { value, refused: error.message };
    throw error;
  }
}

/** @throws ConfigError when the layout is not legal for the model. */
function costsOf(config: ResolvedConfig): Costs {
  const job = configuredJob(config);
  const { total, activated } = countModule(outline(config.model).parameters.filter(({ mtp }) => !mtp));
  const { memoryBytes, flopsPerToken } = layoutCosts(job, configuredLayout(config));
  const { quantization, runtime } = config;
  return {
    total,
    activated,
    trainingBytes: memoryBytes,
    kvBytesPerToken: kvBytesPerToken(job.shape, quantization.kvCacheDtype, runtime.attnImpl === "naive"),
    flopsPerToken,
  };
}
