/** What makes training faster. */

import type { Action } from "./action.ts";

export const LARGER_MICRO_BATCH: Action = {
  name: "larger micro-batch",
  kind: "same numbers",
  why: "Larger products and fewer passes, as far as memory allows.",
  source: "roofline",
  change: ({ config: { training, parallel } }) =>
    training.batchSize % (training.microBatchSize * 2 * parallel.dp) === 0
      ? { "training.micro_batch_size": training.microBatchSize * 2 }
      : undefined,
};

export const LESS_RECOMPUTE: Action = {
  name: "recompute less",
  kind: "same numbers",
  why: "What memory can hold need not be computed twice.",
  source: "Korthikanti et al. 2022",
  change: ({ config: { parallel } }) =>
    parallel.recompute === "full"
      ? { "parallel.recompute": "selective", "parallel.recompute_fraction": 1 }
      : parallel.recompute === "selective"
        ? { "parallel.recompute": "none" }
        : undefined,
};

export const LESS_TENSOR_PARALLEL: Action = {
  name: "less tensor parallelism",
  kind: "same numbers",
  why: "Two all-reduces a layer fall away for each halving; DeepSeek-V3 trained without any.",
  source: "DeepSeek-V3 report 3.2",
  change: ({ config: { parallel } }) =>
    parallel.tp % 2 === 0 ? { "parallel.tp": parallel.tp / 2, "parallel.dp": parallel.dp * 2 } : undefined,
};

export const LESS_ZERO: Action = {
  name: "shard less",
  kind: "same numbers",
  why: "ZeRO 2 and 3 gather weights and scatter gradients in every pass; ZeRO 1 once a step.",
  source: "Rajbhandari et al. 2020",
  change: ({ config: { parallel } }) =>
    parallel.dp > 1 && parallel.zero > 1 ? { "parallel.zero": parallel.zero - 1 } : undefined,
};

export const INTERLEAVE: Action = {
  name: "interleave the pipeline",
  kind: "same numbers",
  why: "Two virtual stages a rank halve the bubble and send twice as much.",
  source: "Narayanan et al. 2021",
  change: ({ config: { parallel } }) =>
    parallel.pp > 1 && parallel.pipelineSchedule === "1f1b"
      ? { "parallel.pipeline_schedule": "interleaved", "parallel.vp": 2 }
      : undefined,
};

export const DUAL_PIPE: Action = {
  name: "DualPipe",
  kind: "same numbers",
  why: "Forward and backward of two directions overlap with their communication; each rank holds two stages of weights.",
  source: "DeepSeek-V3 report 3.2.1",
  change: ({ config: { parallel } }) =>
    parallel.pp > 1 && parallel.pipelineSchedule !== "dualpipe"
      ? { "parallel.pipeline_schedule": "dualpipe", "parallel.vp": 1 }
      : undefined,
};

export const FEWER_STAGES: Action = {
  name: "fewer pipeline stages",
  kind: "same numbers",
  why: "A shorter bubble and more replicas, as far as memory allows.",
  source: "Narayanan et al. 2021",
  change: ({ config: { parallel } }) =>
    parallel.pp % 2 === 0 ? { "parallel.pp": parallel.pp / 2, "parallel.dp": parallel.dp * 2 } : undefined,
};

export const FP8_PRODUCTS: Action = {
  name: "products in fp8",
  kind: "other rounding",
  why: "Twice the rate of bf16 where the device has it; DeepSeek-V3 lost less than 0.25 % of the loss.",
  source: "DeepSeek-V3 report 3.3",
  change: ({ config: { parallel } }) =>
    parallel.precisionRecipe.startsWith("bf16") ? { "parallel.precision_recipe": "fp8" } : undefined,
};

export const PROFILE: Action = {
  name: "look for what the planner does not know",
  kind: "same numbers",
  why: "The run is slower than predicted: see whether data loading, host synchronisation (printing the loss each step) or a slow link holds it up.",
  source: "measured tokens per second against the prediction",
  change: () => ({}),
};
