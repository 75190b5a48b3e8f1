/** What the planner predicts of a run configuration: the numbers in which advice is measured. */

import { blueprint, countParameters } from "../blueprint/index.ts";
import type { ResolvedConfig } from "../config/index.ts";
import {
  checkLayout,
  configuredLayout,
  createTrainingEvaluator,
  device,
  efficiencyFor,
  modelShape,
  precisionRecipe,
  withAdapters,
  worldSize,
  type ModelShape,
  type TrainingEvaluator,
} from "../planner/index.ts";

export interface Prediction {
  /** Parameters and buffers of the model. */
  readonly parameters: number;
  /** Bytes on the fullest device in training, and how many of them may be used. */
  readonly memoryBytes: number;
  readonly limitBytes: number;
  /** Bytes there of weights, gradients, master weights and moments, which no smaller batch makes less. */
  readonly stateBytes: number;
  readonly stepSec: number;
  /** Seconds of the whole run: steps × step time. */
  readonly runSec: number;
  readonly tokensPerSec: number;
}

/** What a prediction is of. */
export interface PredictedJob {
  readonly device: string;
  readonly devices: number;
  /** Sequences of a pass, and whether that is assumed because the run says nothing of it. */
  readonly microBatchSize: number;
  readonly isMicroBatchAssumed: boolean;
}

export function predictedJob(config: ResolvedConfig, isMicroBatchAssumed: boolean): PredictedJob {
  return {
    device: config.hardware.device,
    devices: worldSize(configuredLayout(config)),
    microBatchSize: config.training.microBatchSize,
    isMicroBatchAssumed,
  };
}

/** @throws ConfigError when the layout is not legal for the model or the device lacks a figure. */
export function predictTraining(config: ResolvedConfig): Prediction {
  const evaluator = createEvaluator(config);
  const layout = configuredLayout(config);
  const { memoryBytes, stepSec } = evaluator.evaluate(layout);
  const { weights, gradients, master, moments } = evaluator.memoryParts(layout);
  return {
    parameters: countParameters(blueprint(config.model)).total,
    memoryBytes,
    limitBytes: evaluator.limitBytes,
    stateBytes: weights + gradients + master + moments,
    stepSec,
    runSec: stepSec * config.training.steps,
    tokensPerSec: config.training.tokensPerStep / stepSec,
  };
}

function createEvaluator(config: ResolvedConfig): TrainingEvaluator {
  const shape = trainedShape(config);
  const layout = configuredLayout(config);
  const count = worldSize(layout);
  checkLayout(layout, shape, count);
  const recipe = precisionRecipe(config.parallel.precisionRecipe);
  const cluster = { device: device(config.hardware.device), count };
  const family = shape.nRoutedExperts > 0 ? "moe" : "dense";
  const efficiency = efficiencyFor({ cluster, format: recipe.compute, family });
  return createTrainingEvaluator({ shape, recipe, cluster, efficiency, margin: config.hardware.memoryMargin });
}

/** Matrices of attention that carry adapters, by the ends of their names. */
const ADAPTED = ["attn.wq", "attn.wq_a", "attn.wq_b", "attn.wkv_a", "attn.wkv_b", "attn.wk", "attn.wv", "attn.wo"];

function trainedShape({ model, adapter }: ResolvedConfig): ModelShape {
  const shape = modelShape(blueprint(model));
  return adapter.loraRank > 0 ? withAdapters(shape, { rank: adapter.loraRank, targets: ADAPTED }) : shape;
}
