/** The defaults that follow from other settings, one function for each row whose default is a rule. */

import type { ModelSettings, TrainingSettings } from "./rows.ts";

type Rules<T> = { readonly [K in keyof T]?: (settings: T) => T[K] };

export const MODEL_DEFAULTS: Rules<ModelSettings> = {
  mscaleAllDim: (m) => m.mscale,
  topkMethod: (m) => {
    if (m.scoreFunc === "sigmoid") return "noaux_tc";
    return m.nExpertGroups > 1 ? "group_limited_greedy" : "greedy";
  },
  normTopkProb: (m) => m.scoreFunc === "sigmoid",
  routerBiasSpeed: (m) => (m.topkMethod === "noaux_tc" ? 1e-3 : 0),
  seqBalanceAlpha: (m) => (m.topkMethod === "noaux_tc" ? 1e-4 : 1e-3),
};

export const trainingDefaults = (model: ModelSettings): Rules<TrainingSettings> => ({
  seqLen: () => Math.min(256, model.maxSeqLen),
  microBatchSize: (t) => t.batchSize,
  scheduleSteps: (t) => t.steps,
  minLr: (t) => t.lr / 10,
  warmupSteps: (t) => Math.min(2000, Math.floor(t.scheduleSteps / 20)),
  decaySteps: (t) => Math.floor(t.scheduleSteps / 5),
  evalEvery: (t) => Math.ceil(t.steps / 4),
});
