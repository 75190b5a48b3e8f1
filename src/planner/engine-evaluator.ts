/** The evaluator of a model on a cluster, with the efficiency that is known of an engine there. */

import { efficiencyFor } from "./efficiency.ts";
import { createTrainingEvaluator, type TrainingEvaluator, type TrainingJob } from "./training.ts";

export interface EngineJob extends Omit<TrainingJob, "efficiency"> {
  /** Whose published runs are taken; without one, a general assumption. */
  readonly engine?: string | undefined;
}

/** @throws ConfigError when the device lacks a figure that the plan needs. */
export function engineEvaluator(job: EngineJob): TrainingEvaluator {
  return createTrainingEvaluator(engineJob(job));
}

export function engineJob({ engine, ...job }: EngineJob): TrainingJob {
  const { shape, recipe, cluster } = job;
  const family = shape.nRoutedExperts > 0 ? "moe" : "dense";
  return { ...job, efficiency: efficiencyFor({ engine, cluster, format: recipe.compute, family }) };
}
