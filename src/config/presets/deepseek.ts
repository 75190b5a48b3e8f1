/** The released models with latent attention: V2, V3 and those that share their architecture. */

import type { RunSettings } from "../presets.ts";
import { stepsFor } from "./steps.ts";

// oxlint-disable-next-line oxc/approx-constant -- the number of config.json, not √½
const V2_MSCALE = 0.707;

/** **Source:** config.json of deepseek-ai/DeepSeek-V2-Lite; training from the DeepSeek-V2 report, appendix B: 5.7 T tokens. */
export function deepseekV2Lite(): RunSettings {
  const batch = { seqLen: 4096, batchSize: 4608 };
  return {
    model: {
      vocabSize: 102400,
      dim: 2048,
      interDim: 10944,
      moeInterDim: 1408,
      nLayers: 27,
      nDenseLayers: 1,
      nHeads: 16,
      nRoutedExperts: 64,
      nSharedExperts: 2,
      nActivatedExperts: 6,
      nExpertGroups: 1,
      nLimitedGroups: 1,
      scoreFunc: "softmax",
      topkMethod: "greedy",
      normTopkProb: false,
      routeScale: 1,
      qLoraRank: 0,
      kvLoraRank: 512,
      qkNopeHeadDim: 128,
      qkRopeHeadDim: 64,
      vHeadDim: 128,
      originalSeqLen: 4096,
      ropeTheta: 10000,
      ropeFactor: 40,
      betaFast: 32,
      betaSlow: 1,
      mscale: V2_MSCALE,
      mscaleAllDim: V2_MSCALE,
      maxSeqLen: 163840,
      seqBalanceAlpha: 0.001,
      dtype: "bf16",
    },
    training: {
      ...batch,
      steps: stepsFor(5.7e12, batch),
      lr: 4.2e-4,
      schedule: "piecewise",
      milestones: [0.8, 0.9],
      milestoneFactors: [0.316, 0.1],
    },
  };
}

/** **Source:** config.json of deepseek-ai/DeepSeek-V2; training from the DeepSeek-V2 report, 3.1.2: 8.1 T tokens. */
export function deepseekV2(): RunSettings {
  const lite = deepseekV2Lite();
  const batch = { seqLen: 4096, batchSize: 9216 };
  return {
    model: {
      ...lite.model,
      dim: 5120,
      interDim: 12288,
      moeInterDim: 1536,
      nLayers: 60,
      nHeads: 128,
      nRoutedExperts: 160,
      nExpertGroups: 8,
      nLimitedGroups: 3,
      topkMethod: "group_limited_greedy",
      routeScale: 16,
      qLoraRank: 1536,
      initStd: 0.006,
    },
    training: { ...lite.training, ...batch, steps: stepsFor(8.1e12, batch), lr: 2.4e-4, milestones: [0.6, 0.9] },
  };
}

/** **Source:** config.json of deepseek-ai/DeepSeek-V3; training from the DeepSeek-V3 report, 4.2: 14.8 T tokens. */
export function deepseekV3(): RunSettings {
  const batch = { seqLen: 4096, batchSize: 15360 };
  return {
    model: {
      ...deepseekV2().model,
      vocabSize: 129280,
      dim: 7168,
      interDim: 18432,
      moeInterDim: 2048,
      nLayers: 61,
      nDenseLayers: 3,
      nRoutedExperts: 256,
      nSharedExperts: 1,
      nActivatedExperts: 8,
      nLimitedGroups: 4,
      scoreFunc: "sigmoid",
      topkMethod: "noaux_tc",
      normTopkProb: true,
      routeScale: 2.5,
      mscale: 1,
      mscaleAllDim: 1,
      nMtpLayers: 1,
      routerBiasSpeed: 0.001,
      seqBalanceAlpha: 0.0001,
      dtype: "fp8",
    },
    training: { ...batch, steps: stepsFor(14.8e12, batch), lr: 2.2e-4 },
  };
}

/** V3 with scales that are powers of two. **Source:** deepseek-ai/DeepSeek-V3 inference/configs/config_v3.1.json. */
export function deepseekV31(): RunSettings {
  const v3 = deepseekV3();
  return { ...v3, model: { ...v3.model, scaleFmt: "ue8m0" } };
}

/** V3.1 with the lightning indexer in every layer. **Source:** config.json of deepseek-ai/DeepSeek-V3.2-Exp. */
export function deepseekV32(): RunSettings {
  const v31 = deepseekV31();
  return { ...v31, model: { ...v31.model, indexNHeads: 64, indexHeadDim: 128, indexTopk: 2048 } };
}
