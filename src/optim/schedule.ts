/** Learning rates by step: warm-up, then a cosine, a plateau with a final decay, DeepSeek's stairs, or level. */

import type { TrainingConfig } from "../config/index.ts";

type ScheduleConfig = Pick<
  TrainingConfig,
  "lr" | "minLr" | "schedule" | "scheduleSteps" | "warmupSteps" | "decaySteps" | "milestones" | "milestoneFactors"
>;

/**
 * The learning rate of a step, counted from 1. After scheduleSteps it stays where it ended.
 *
 * **Source:** DeepSeek LLM report 2.3 (piecewise); DeepSeek-V3 report 4.2 (level, then cosine); Hu et al. 2024
 * (arXiv 2404.06395) (wsd).
 */
export function learningRate(config: ScheduleConfig, step: number): number {
  const { lr, warmupSteps } = config;
  if (step <= warmupSteps) return (lr * step) / warmupSteps;
  const at = Math.min(step, config.scheduleSteps);
  switch (config.schedule) {
    case "constant":
      return lr;
    case "cosine":
      return between(config, 0.5 * (1 + Math.cos(Math.PI * share(at, warmupSteps, config.scheduleSteps))));
    case "wsd":
      return between(config, 1 - share(at, config.scheduleSteps - config.decaySteps, config.scheduleSteps));
    case "piecewise": {
      const passed = config.milestones.filter((milestone) => at > milestone * config.scheduleSteps).length;
      return passed === 0 ? lr : lr * config.milestoneFactors[passed - 1]!;
    }
    default:
      return config.schedule satisfies never;
  }
}

/** How far `at` lies on the way from `from` to `to`, within [0, 1]. */
function share(at: number, from: number, to: number): number {
  return to <= from ? 1 : Math.min(1, Math.max(0, (at - from) / (to - from)));
}

function between({ lr, minLr }: ScheduleConfig, part: number): number {
  return minLr + (lr - minLr) * part;
}
