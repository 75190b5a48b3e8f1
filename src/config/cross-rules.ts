/** Rules between settings, each with the cure. The first broken one is reported, so that causes stand before effects. */

import { FAMILY_RULES } from "./family-rules.ts";
import type { Section } from "./row.ts";
import type { AllSettings, ModelSettings } from "./rows.ts";

export interface CrossRule {
  /** The setting to blame, as `section.name`. */
  readonly parameter: { [S in Section]: `${S}.${keyof AllSettings[S] & string}` }[Section];
  readonly broken: (settings: AllSettings) => boolean;
  readonly rule: (settings: AllSettings) => string;
  readonly cure: string | ((settings: AllSettings) => string);
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
    broken: ({ model }) => (model.topkMethod === "noaux_tc") !== (model.scoreFunc !== "softmax"),
    rule: ({ model }) =>
      model.scoreFunc === "softmax"
        ? "must be greedy or group_limited_greedy with score_func softmax"
        : `must be noaux_tc with score_func ${model.scoreFunc}`,
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
  ...FAMILY_RULES,
  {
    parameter: "model.qkRopeHeadDim",
    broken: ({ model }) => model.qkRopeHeadDim % 2 !== 0,
    rule: () => "must be even, since channels are rotated in pairs",
    cure: "add or remove one channel",
  },
  {
    parameter: "model.mscaleAllDim",
    broken: ({ model }) =>
      model.attention !== "csa" &&
      (model.mscale === 0 || model.mscaleAllDim === 0) &&
      !(model.mscale === 1 && model.mscaleAllDim === 0),
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
    parameter: "training.batchSize",
    broken: ({ training, parallel }) => training.batchSize % parallel.dp !== 0,
    rule: ({ parallel }) => `must be a multiple of dp (${parallel.dp})`,
    cure: ({ training, parallel }) =>
      `for example batch_size=${Math.max(1, Math.round(training.batchSize / parallel.dp)) * parallel.dp}`,
  },
  {
    parameter: "training.gradAccumSteps",
    // The one of the two that was not given may be a fraction: the other is to blame.
    broken: ({ training: { batchSize, gradAccumSteps }, parallel }) =>
      Number.isInteger(gradAccumSteps) && (batchSize / parallel.dp) % gradAccumSteps !== 0,
    rule: ({ training, parallel }) => `must divide batch_size / dp (${training.batchSize / parallel.dp})`,
    cure: "batch_size = micro_batch_size × grad_accum_steps × dp",
  },
  {
    parameter: "training.microBatchSize",
    broken: ({ training, parallel }) => (training.batchSize / parallel.dp) % training.microBatchSize !== 0,
    rule: ({ training, parallel }) =>
      parallel.dp === 1
        ? `must divide batch_size (${training.batchSize})`
        : `must divide batch_size / dp (${training.batchSize / parallel.dp})`,
    cure: "batch_size = micro_batch_size × grad_accum_steps × dp",
  },
  {
    parameter: "training.batchSize",
    broken: ({ training, parallel }) =>
      training.microBatchSize * training.gradAccumSteps * parallel.dp !== training.batchSize,
    rule: ({ training: { microBatchSize, gradAccumSteps }, parallel }) =>
      `must be micro_batch_size × grad_accum_steps × dp (${microBatchSize} × ${gradAccumSteps} × ${parallel.dp})`,
    cure: ({ training: { microBatchSize, gradAccumSteps }, parallel }) =>
      `set batch_size=${microBatchSize * gradAccumSteps * parallel.dp}, or leave one of the others out`,
  },
  {
    parameter: "training.warmupRatio",
    broken: ({ training: { warmupRatio, warmupSteps, scheduleSteps } }) =>
      warmupRatio !== null && Math.round(warmupRatio * scheduleSteps) !== warmupSteps,
    rule: ({ training: { warmupSteps, scheduleSteps } }) =>
      `must agree with warmup_steps (${warmupSteps} of ${scheduleSteps})`,
    cure: "give one of them",
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
  {
    parameter: "runtime.worldSize",
    broken: ({ runtime, parallel: { tp, pp, cp, dp } }) => runtime.worldSize !== tp * pp * cp * dp,
    rule: ({ parallel: { tp, pp, cp, dp } }) => `must be tp × pp × cp × dp (${tp} × ${pp} × ${cp} × ${dp})`,
    cure: "leave it out: it follows from the layout",
  },
  {
    parameter: "runtime.rank",
    broken: ({ runtime }) => runtime.rank >= runtime.worldSize,
    rule: ({ runtime }) => `must be below world_size (${runtime.worldSize})`,
    cure: "ranks count from 0",
  },
  {
    parameter: "hardware.devices",
    broken: ({ hardware, runtime }) => runtime.worldSize > 1 && hardware.devices !== runtime.worldSize,
    rule: ({ runtime }) => `must be the ${runtime.worldSize} ranks of the layout`,
    cure: "leave one of the two out",
  },
];
