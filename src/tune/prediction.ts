/** What the planner predicts of a run configuration: the numbers in which advice is measured. */

import { blueprint, countParameters } from "../blueprint/index.ts";
import type { ResolvedConfig } from "../config/index.ts";
import { configuredLayout, evaluatorOfConfig, worldSize, type Quantity } from "../planner/index.ts";

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
  const plan = blueprint(config.model);
  const evaluator = evaluatorOfConfig(config, { plan });
  const layout = configuredLayout(config);
  const { memoryBytes, stepSec } = evaluator.evaluate(layout);
  const { weights, gradients, master, moments } = evaluator.memoryParts(layout);
  return {
    parameters: countParameters(plan).total,
    memoryBytes,
    limitBytes: evaluator.limitBytes,
    stateBytes: weights + gradients + master + moments,
    stepSec,
    runSec: stepSec * config.training.steps,
    tokensPerSec: config.training.tokensPerStep / stepSec,
  };
}

/**
 * Where a number of the prediction comes from.
 * @param name - a row of the training plan, such as `memory.total`.
 */
export function explainPrediction(config: ResolvedConfig, name: string): Quantity {
  return evaluatorOfConfig(config).explain(configuredLayout(config), name);
}
