/** Settings that wait for another one: while it stands as it does, they change nothing. */

import type { AllSettings } from "./rows.ts";

interface IdleRule {
  /** As `section.name`. */
  readonly parameters: readonly string[];
  readonly idle: (settings: AllSettings) => boolean;
  readonly reason: (settings: AllSettings) => string;
}

const because = (
  section: string,
  names: string,
  idle: IdleRule["idle"],
  reason: string | IdleRule["reason"],
): IdleRule => ({
  parameters: names.split(" ").map((name) => `${section}.${name}`),
  idle,
  reason: typeof reason === "string" ? () => reason : reason,
});

export const IDLE_RULES: readonly IdleRule[] = [
  because(
    "model",
    "originalSeqLen betaFast betaSlow mscale mscaleAllDim",
    ({ model }) => model.ropeFactor === 1,
    "YaRN is off with rope_factor 1",
  ),
  because("model", "mtpHidden mtpLossWeight", ({ model }) => model.nMtpLayers === 0, "there are no MTP layers"),
  because("model", "interDim", ({ model }) => model.nDenseLayers === 0, "there are no dense layers"),
  because(
    "model",
    "moeInterDim nRoutedExperts nSharedExperts nActivatedExperts nExpertGroups nLimitedGroups scoreFunc routeScale " +
      "topkMethod normTopkProb routerBiasSpeed seqBalanceAlpha",
    ({ model }) => model.nDenseLayers === model.nLayers,
    "all layers are dense",
  ),
  because(
    "model",
    "kvLoraRank",
    ({ model }) => model.attention !== "mla",
    ({ model }) => `attention is ${model.attention}`,
  ),
  because("model", "indexHeadDim indexTopk", ({ model }) => model.indexNHeads === 0, "there is no indexer"),
  because(
    "model",
    "compressRopeTheta",
    ({ model }) => model.attention !== "csa",
    ({ model }) => `attention is ${model.attention}`,
  ),
  because("model", "hcSinkhornIters hcEps", ({ model }) => model.hcMult === 1, "there are no hyper-connections"),
  because(
    "training",
    "decaySteps",
    ({ training }) => training.schedule !== "wsd",
    ({ training }) => `schedule is ${training.schedule}; only wsd ends in a decay`,
  ),
  because(
    "training",
    "milestones milestoneFactors",
    ({ training }) => training.schedule !== "piecewise",
    ({ training }) => `schedule is ${training.schedule}; only piecewise has stairs`,
  ),
  because(
    "training",
    "minLr",
    ({ training }) => training.schedule === "constant" || training.schedule === "piecewise",
    ({ training }) => `schedule is ${training.schedule}, which does not end at min_lr`,
  ),
  because(
    "generation",
    "topK topP",
    ({ generation }) => generation.temperature === 0,
    "temperature is 0, which takes the likeliest token",
  ),
];
