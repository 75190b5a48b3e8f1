/** The training plan of a run configuration: its model with its adapters, on its device, in its layout. */

import { blueprint, checkpointNames, type Blueprint } from "../blueprint/index.ts";
import type { ResolvedConfig } from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import { configuredLayout } from "./configured-layout.ts";
import { device as builtInDevice } from "./devices.ts";
import { engineJob } from "./engine-evaluator.ts";
import type { Device } from "./hardware.ts";
import { checkLayout, worldSize } from "./layout.ts";
import { frozenWeightBytes, precisionRecipe } from "./precision.ts";
import { modelShape, withAdapters, type ModelShape } from "./shape.ts";
import { createTrainingEvaluator, type TrainingEvaluator, type TrainingJob } from "./training.ts";

export interface ConfiguredParts {
  /** The device of the configuration's name if none is given. */
  readonly device?: Device;
  /** The blueprint of the model, where it is made already. */
  readonly plan?: Blueprint;
}

/**
 * The evaluator of a configuration; `configuredLayout` is the layout to ask it for.
 *
 * @throws ConfigError when the layout is not legal for the model, the device lacks a figure or no matrix has a name
 * in `adapter.lora_targets`.
 */
export function evaluatorOfConfig(config: ResolvedConfig, parts: ConfiguredParts = {}): TrainingEvaluator {
  return createTrainingEvaluator(configuredJob(config, parts));
}

/** What `evaluatorOfConfig` evaluates. @throws ConfigError as it does. */
export function configuredJob(config: ResolvedConfig, parts: ConfiguredParts = {}): TrainingJob {
  const { device = builtInDevice(config.hardware.device), plan } = parts;
  const { adapter, hardware, parallel } = config;
  const shape = trainedShape(config, plan);
  const layout = configuredLayout(config);
  const cluster = { device, count: worldSize(layout) };
  checkLayout(layout, shape, cluster.count);
  const recipe = precisionRecipe(parallel.precisionRecipe);
  const job = { shape, recipe, cluster, margin: hardware.memoryMargin };
  return engineJob(adapter.loraRank === 0 ? job : { ...job, frozenBytes: frozenWeightBytes(adapter.loraBase) });
}

function trainedShape({ adapter, model }: ResolvedConfig, plan: Blueprint | undefined): ModelShape {
  const shape = modelShape(model);
  if (adapter.loraRank === 0) return shape;
  const targets = matricesOf(plan ?? blueprint(model), adapter.loraTargets);
  return withAdapters(shape, { rank: adapter.loraRank, targets });
}

/** Names within a layer of the matrices that have these modules in a checkpoint: `attn.wq_a` for `q_a_proj`. */
function matricesOf(plan: Blueprint, modules: readonly string[]): string[] {
  const oneExpert = plan.parameters.map((spec) =>
    spec.group === "routed_experts" ? { ...spec, shape: [1, ...spec.shape.slice(1)] } : spec,
  );
  const tensors = checkpointNames({ ...plan, parameters: oneExpert });
  const isTarget = (name: string): boolean => modules.includes(name.split(".").at(-2) ?? name);
  const found = tensors.filter(({ name }) => isTarget(name));
  if (found.length > 0) return [...new Set(found.map(({ parameter }) => parameter.replace(/^layers\.\d+\./, "")))];
  const known = new Set(tensors.map(({ name }) => name.split(".").at(-2) ?? name));
  const cure = `its modules: ${[...known].join(", ")}`;
  throw new ConfigError("adapter.lora_targets", "must name a matrix of the model", modules.join(", "), cure);
}
