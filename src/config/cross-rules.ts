/** Rules between settings, each with the cure. The first broken one is reported, so that causes stand before effects. */

import type { ModelSettings, TrainingSettings } from "./rows.ts";

interface CrossSettings {
  readonly model: ModelSettings;
  readonly training: TrainingSettings;
}

interface CrossRule {
  /** The setting to blame, as `section.name`. */
  readonly parameter: `model.${keyof ModelSettings}` | `training.${keyof TrainingSettings}`;
  readonly broken: (settings: CrossSettings) => boolean;
  readonly rule: (settings: CrossSettings) => string;
  readonly cure: string;
}

const isGrouped = (m: ModelSettings): boolean => m.nExpertGroups > 1;
const expertsPerGroup = (m: ModelSettings): number => m.nRoutedExperts / m.nExpertGroups;

export const CROSS_RULES: readonly CrossRule[] = [
  {
    parameter: "model.nDenseLayers",
    broken: ({ model }) => model.nDenseLayers > model.nLayers,
    rule: ({ model }) => `must be at most n_layers (${model.nLayers})`,
    cure: "lower n_dense_layers or raise n_layers",
  },
  {
    parameter: "model.nActivatedExperts",
    broken: ({ model }) => model.nActivatedExperts > model.nRoutedExperts,
    rule: ({ model }) => `must be at most n_routed_experts (${model.nRoutedExperts})`,
    cure: "lower n_activated_experts or raise n_routed_experts",
  },
  {
    parameter: "model.nExpertGroups",
    broken: ({ model }) => model.nRoutedExperts % model.nExpertGroups !== 0,
    rule: ({ model }) => `must divide n_routed_experts (${model.nRoutedExperts})`,
    cure: "choose a number of groups that divides the experts, or 1 for no groups",
  },
  {
    parameter: "model.nLimitedGroups",
    broken: ({ model }) => model.nLimitedGroups > model.nExpertGroups,
    rule: ({ model }) => `must be at most n_expert_groups (${model.nExpertGroups})`,
    cure: "lower n_limited_groups or raise n_expert_groups",
  },
  {
    parameter: "model.nActivatedExperts",
    broken: ({ model }) => model.nActivatedExperts > model.nLimitedGroups * expertsPerGroup(model),
    rule: ({ model }) =>
      `must be at most the ${model.nLimitedGroups * expertsPerGroup(model)} experts of n_limited_groups (${model.nLimitedGroups}) groups`,
    cure: "lower n_activated_experts or raise n_limited_groups",
  },
  {
    parameter: "model.topkMethod",
    broken: ({ model }) => (model.topkMethod === "noaux_tc") !== (model.scoreFunc === "sigmoid"),
    rule: ({ model }) =>
      model.scoreFunc === "sigmoid"
        ? "must be noaux_tc with score_func sigmoid"
        : "must be greedy or group_limited_greedy with score_func softmax",
    cure: "set both as in V3 (sigmoid, noaux_tc) or as in V2 (softmax, group_limited_greedy)",
  },
  {
    parameter: "model.nExpertGroups",
    broken: ({ model }) => model.topkMethod === "greedy" && isGrouped(model),
    rule: () => "must be 1 with topk_method greedy, which knows no groups",
    cure: "set topk_method to group_limited_greedy or n_expert_groups to 1",
  },
  {
    parameter: "model.nExpertGroups",
    broken: ({ model }) => model.topkMethod === "noaux_tc" && isGrouped(model) && expertsPerGroup(model) < 2,
    rule: ({ model }) =>
      `must leave at least 2 of the ${model.nRoutedExperts} experts in a group, since noaux_tc scores a group by its two best`,
    cure: "lower n_expert_groups",
  },
  {
    parameter: "model.routerBiasSpeed",
    broken: ({ model }) => model.routerBiasSpeed > 0 && model.topkMethod !== "noaux_tc",
    rule: ({ model }) => `must be 0 with topk_method ${model.topkMethod}, which has no bias`,
    cure: "set router_bias_speed to 0 or topk_method to noaux_tc",
  },
  {
    parameter: "model.qkRopeHeadDim",
    broken: ({ model }) => model.qkRopeHeadDim % 2 !== 0,
    rule: () => "must be even, since channels are rotated in pairs",
    cure: "add or remove one channel",
  },
  {
    parameter: "model.mscaleAllDim",
    broken: ({ model }) =>
      (model.mscale === 0 || model.mscaleAllDim === 0) && !(model.mscale === 1 && model.mscaleAllDim === 0),
    rule: ({ model }) => `must be above 0 together with mscale (${model.mscale}), or 0 with mscale 1`,
    cure: "give both the same value, as every DeepSeek model does",
  },
  {
    parameter: "model.betaSlow",
    broken: ({ model }) => model.betaSlow > model.betaFast,
    rule: ({ model }) => `must be at most beta_fast (${model.betaFast})`,
    cure: "leave them at 32 and 1",
  },
  {
    parameter: "model.scaleFmt",
    broken: ({ model }) => model.scaleFmt !== null && model.dtype !== "fp8",
    rule: ({ model }) => `must be null with dtype ${model.dtype}, which has no scales`,
    cure: "leave scale_fmt out or set dtype to fp8",
  },
  {
    parameter: "training.seqLen",
    broken: ({ model, training }) => training.seqLen > model.maxSeqLen,
    rule: ({ model }) => `must be at most max_seq_len (${model.maxSeqLen})`,
    cure: "lower seq_len or raise max_seq_len",
  },
  {
    parameter: "training.microBatchSize",
    broken: ({ training }) => training.batchSize % training.microBatchSize !== 0,
    rule: ({ training }) => `must divide batch_size (${training.batchSize})`,
    cure: "batch_size = micro_batch_size × accumulation",
  },
  {
    parameter: "training.warmupSteps",
    broken: ({ training }) => training.warmupSteps > training.scheduleSteps,
    rule: ({ training }) => `must be at most schedule_steps (${training.scheduleSteps})`,
    cure: "lower warmup_steps",
  },
  {
    parameter: "training.decaySteps",
    broken: ({ training }) =>
      training.schedule === "wsd" && training.decaySteps > training.scheduleSteps - training.warmupSteps,
    rule: ({ training }) =>
      `must be at most schedule_steps − warmup_steps (${training.scheduleSteps - training.warmupSteps})`,
    cure: "lower decay_steps or warmup_steps",
  },
  {
    parameter: "training.minLr",
    broken: ({ training }) => training.minLr > training.lr,
    rule: ({ training }) => `must be at most lr (${training.lr})`,
    cure: "lower min_lr",
  },
  {
    parameter: "training.milestones",
    broken: ({ training }) => training.milestones.some((at, i, all) => i > 0 && at <= all[i - 1]!),
    rule: () => "must rise",
    cure: "sort them",
  },
  {
    parameter: "training.milestoneFactors",
    broken: ({ training }) => training.milestoneFactors.length !== training.milestones.length,
    rule: ({ training }) => `must have one value for each of the ${training.milestones.length} milestones`,
    cure: "give as many factors as milestones",
  },
];
