/** What saves memory in training. */

import type { Action } from "./action.ts";

export const SMALLER_MICRO_BATCH: Action = {
  name: "smaller micro-batch",
  kind: "same numbers",
  why: "Half the sequences in a pass, twice the passes: gradients are summed, so the step is the same.",
  source: "gradient accumulation weighted by tokens",
  change: ({ config: { training } }) =>
    training.microBatchSize > 1 && training.microBatchSize % 2 === 0
      ? { "training.micro_batch_size": training.microBatchSize / 2 }
      : undefined,
};

export const SELECTIVE_RECOMPUTE: Action = {
  name: "recompute what is cheap",
  kind: "same numbers",
  why: "Norms, SwiGLU products and MLA up-projections are computed again in backward; DeepSeek-V3 trained so.",
  source: "DeepSeek-V3 report 3.2.3",
  change: ({ config: { parallel } }) =>
    parallel.recompute === "none" ? { "parallel.recompute": "selective" } : undefined,
};

export const MOST_LAYERS_RECOMPUTE: Action = {
  name: "recompute the first 80 % of the layers",
  kind: "same numbers",
  why: "Those layers keep their inputs only; forward runs a second time for them.",
  source: "Chen et al. 2016; Megatron-LM --recompute-num-layers",
  change: ({ config: { parallel } }) =>
    parallel.recompute === "full" ? undefined : { "parallel.recompute": "full", "parallel.recompute_fraction": 0.8 },
};

export const FULL_RECOMPUTE: Action = {
  name: "recompute every layer",
  kind: "same numbers",
  why: "Each layer keeps its input only; costs a third more work than no recomputation.",
  source: "Chen et al. 2016",
  change: ({ config: { parallel } }) =>
    parallel.recompute === "full" && parallel.recomputeFraction === 1
      ? undefined
      : { "parallel.recompute": "full", "parallel.recompute_fraction": 1 },
};

export const MORE_ZERO: Action = {
  name: "shard more over data-parallel ranks",
  kind: "same numbers",
  why: "The next ZeRO stage divides optimizer states, then gradients, then weights among the replicas.",
  source: "Rajbhandari et al. 2020",
  change: ({ config: { parallel } }) =>
    parallel.dp > 1 && parallel.zero < 3 ? { "parallel.zero": parallel.zero + 1 } : undefined,
};

export const MORE_EXPERT_PARALLEL: Action = {
  name: "deal the experts to more ranks",
  kind: "same numbers",
  why: "Routed experts are nearly all parameters of an MoE; more ranks share them, at more all-to-all traffic.",
  source: "DeepSeek-V3 report 3.2: EP 64",
  change: ({ config: { parallel, model } }) =>
    model.nRoutedExperts > 0 && parallel.ep * 2 * parallel.etp <= parallel.tp * parallel.cp * parallel.dp
      ? { "parallel.ep": parallel.ep * 2 }
      : undefined,
};

export const MORE_PIPELINE: Action = {
  name: "more pipeline stages",
  kind: "same numbers",
  why: "Half the layers on a rank and half the replicas; the bubble grows.",
  source: "DeepSeek-V3 report 3.2: PP 16",
  change: ({ config: { parallel } }) =>
    parallel.dp % 2 === 0
      ? {
          "parallel.pp": parallel.pp * 2,
          "parallel.dp": parallel.dp / 2,
          "parallel.ep": Math.min(parallel.ep, (parallel.tp * parallel.cp * parallel.dp) / 2 / parallel.etp),
        }
      : undefined,
};

export const SEQUENCE_PARALLEL: Action = {
  name: "divide norms along the sequence",
  kind: "same numbers",
  why: "Tensor-parallel ranks hold a part of the sequence where they would all hold the same.",
  source: "Korthikanti et al. 2022",
  change: ({ config: { parallel } }) =>
    parallel.tp > 1 && !parallel.sequenceParallel ? { "parallel.sequence_parallel": true } : undefined,
};

export const BF16_MOMENTS: Action = {
  name: "moments in bf16",
  kind: "other rounding",
  why: "4 bytes a parameter less; DeepSeek-V3 kept its moments so.",
  source: "DeepSeek-V3 report 3.3.3",
  change: ({ config: { parallel } }) =>
    parallel.precisionRecipe === "bf16" ? { "parallel.precision_recipe": "bf16-bf16-moments" } : undefined,
};

export const BF16_STATES: Action = {
  name: "train in bf16",
  kind: "other rounding",
  why: "Activations halve; weights, gradients and moments stay at 16 to 18 bytes a parameter.",
  source: "Micikevicius et al. 2018",
  change: ({ config: { parallel } }) =>
    parallel.precisionRecipe === "fp32" ? { "parallel.precision_recipe": "bf16" } : undefined,
};

export const LORA: Action = {
  name: "train adapters only",
  kind: "other training",
  why: "LoRA of rank 16 on attention: the base is frozen and needs neither gradients nor moments. For fine-tuning, not for pre-training.",
  source: "Hu et al. 2021",
  change: ({ config: { adapter } }) => (adapter.loraRank === 0 ? { "adapter.lora_rank": 16 } : undefined),
};

export const SHORTER_SEQUENCES: Action = {
  name: "shorter sequences",
  kind: "other training",
  why: "Half the tokens of a sequence, twice the sequences: the model sees no longer context than that.",
  source: "activations grow linearly with the sequence",
  change: ({ config: { training } }) =>
    training.seqLen >= 256 && training.seqLen % 2 === 0
      ? { "training.seq_len": training.seqLen / 2, "training.batch_size": training.batchSize * 2 }
      : undefined,
};

export const NARROWER_MODEL: Action = {
  name: "a narrower model",
  kind: "new model",
  why: "Another model, trained from the start: a checkpoint of this one does not fit it.",
  source: "parameters grow with the square of the width",
  change: ({ config: { model } }) =>
    model.dim >= 256 && model.dim % 4 === 0 ? { "model.dim": model.dim / 2 } : undefined,
};
