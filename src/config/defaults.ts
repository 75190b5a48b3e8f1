/** The defaults that follow from other settings, one function for each row whose default is a rule. */

import type { Section } from "./row.ts";
import type { AllSettings, ModelSettings, TrainingSettings } from "./rows.ts";

type Rules<T> = { readonly [K in keyof T]?: (settings: T) => T[K] };

/** In the order in which they are carried out: a rule may read what stands before it. */
const MODEL_DEFAULTS: Rules<ModelSettings> = {
  activation: (m) => (m.architecture === "encoder" ? "gelu" : "silu"),
  positionEmbedding: (m) => (m.architecture === "encoder" ? "learned" : "rope"),
  nKvHeads: (m) => ({ mla: 0, gqa: m.nHeads, csa: 1 })[m.attention],
  headDim: (m) => ({ mla: 0, gqa: Math.floor(m.dim / m.nHeads), csa: 512 })[m.attention],
  qkRopeHeadDim: (m) => (m.attention === "gqa" ? m.headDim : 64),
  qkNopeHeadDim: (m) => (m.attention === "mla" ? 128 : Math.max(0, m.headDim - m.qkRopeHeadDim)),
  vHeadDim: (m) => (m.attention === "mla" ? 128 : m.headDim),
  windowSize: (m) => (m.attention === "csa" ? 128 : 0),
  oLoraRank: (m) => (m.attention === "csa" ? 1024 : 0),
  oGroups: (m) => (m.attention === "csa" ? 8 : 1),
  mscaleAllDim: (m) => m.mscale,
  topkMethod: (m) => {
    if (m.scoreFunc !== "softmax") return "noaux_tc";
    return m.nExpertGroups > 1 ? "group_limited_greedy" : "greedy";
  },
  normTopkProb: (m) => m.scoreFunc !== "softmax",
  routerBiasSpeed: (m) => (m.topkMethod === "noaux_tc" ? 1e-3 : 0),
  seqBalanceAlpha: (m) => (m.topkMethod === "noaux_tc" ? 1e-4 : 1e-3),
};

const trainingDefaults = ({ model, parallel }: AllSettings): Rules<TrainingSettings> => ({
  seqLen: () => Math.min(256, model.maxSeqLen),
  microBatchSize: (t) => t.batchSize / parallel.dp / (typeof t.gradAccumSteps === "number" ? t.gradAccumSteps : 1),
  gradAccumSteps: (t) => t.batchSize / parallel.dp / t.microBatchSize,
  scheduleSteps: (t) => t.steps,
  minLr: (t) => t.lr / 10,
  warmupSteps: (t) =>
    t.warmupRatio === null
      ? Math.min(2000, Math.floor(t.scheduleSteps / 20))
      : Math.round(t.warmupRatio * t.scheduleSteps),
  decaySteps: (t) => Math.floor(t.scheduleSteps / 5),
  evalEvery: (t) => Math.ceil(t.steps / 4),
});

const ranksOf = ({ parallel: { tp, pp, cp, dp } }: AllSettings): number => tp * pp * cp * dp;

type SectionRules = { readonly [S in Section]?: (settings: AllSettings) => Rules<AllSettings[S]> };

/** By section, in the order in which they are filled: a rule may read the sections before its own. */
const SECTION_RULES = {
  model: () => MODEL_DEFAULTS,
  parallel: ({ model }) => ({
    sequenceParallel: (p) => p.tp > 1,
    pipelineSchedule: (p) => (p.vp > 1 ? "interleaved" : "1f1b"),
    nodeLimit: () => (model.nExpertGroups > 1 ? model.nLimitedGroups : 0),
  }),
  training: trainingDefaults,
  adapter: () => ({ loraAlpha: (a) => (a.loraRank === 0 ? 1 : 2 * a.loraRank) }),
  runtime: (all) => ({ worldSize: () => ranksOf(all) }),
  hardware: (all) => ({ devices: () => ranksOf(all) }),
} satisfies SectionRules;

/** The sections whose rules others read come first. */
export const FILL_ORDER: readonly Section[] = [
  "model",
  "parallel",
  "training",
  "data",
  "adapter",
  "distillation",
  "alignment",
  "quantization",
  "generation",
  "serving",
  "runtime",
  "hardware",
  "tuning",
];

/** What computes the defaults of a section that are rules, by name in the order in which they are carried out. */
export function defaultRules(
  section: Section,
  settings: AllSettings,
): Readonly<Record<string, (settings: never) => unknown>> {
  return (SECTION_RULES as SectionRules)[section]?.(settings) ?? {};
}
