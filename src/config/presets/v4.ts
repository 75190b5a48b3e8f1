/** V4: compressed attention, hyper-connections, hash-routed first layers, fp4 experts. */

import type { RunSettings } from "../presets.ts";
import { stepsFor } from "./steps.ts";

/** So many pairs of a layer that selects (4) and one that pools (128), one more of the first, and the MTP layer. */
function ratios(first: readonly number[], pairs: number): number[] {
  return [...first, ...Array.from({ length: pairs }, () => [4, 128]).flat(), 4, 0];
}

/** **Source:** config.json of deepseek-ai/DeepSeek-V4-Flash; training from the DeepSeek-V4 report: 32 T tokens. */
export function deepseekV4Flash(): RunSettings {
  const batch = { seqLen: 4096, batchSize: 18432 };
  return {
    model: {
      attention: "csa",
      vocabSize: 129280,
      dim: 4096,
      moeInterDim: 2048,
      nLayers: 43,
      nDenseLayers: 0,
      nHeads: 64,
      headDim: 512,
      qkRopeHeadDim: 64,
      qLoraRank: 1024,
      oLoraRank: 1024,
      oGroups: 8,
      windowSize: 128,
      compressRatios: ratios([0, 0], 20),
      compressRopeTheta: 160000,
      indexNHeads: 64,
      indexHeadDim: 128,
      indexTopk: 512,
      nRoutedExperts: 256,
      nSharedExperts: 1,
      nActivatedExperts: 6,
      nHashLayers: 3,
      scoreFunc: "sqrtsoftplus",
      topkMethod: "noaux_tc",
      normTopkProb: true,
      routeScale: 1.5,
      swigluLimit: 10,
      hcMult: 4,
      hcSinkhornIters: 20,
      hcEps: 1e-6,
      originalSeqLen: 65536,
      ropeTheta: 10000,
      ropeFactor: 16,
      betaFast: 32,
      betaSlow: 1,
      mscale: 0,
      mscaleAllDim: 0,
      maxSeqLen: 1048576,
      nMtpLayers: 1,
      routerBiasSpeed: 0.001,
      seqBalanceAlpha: 0.0001,
      dtype: "fp8",
      scaleFmt: "ue8m0",
      expertDtype: "fp4",
    },
    training: { ...batch, steps: stepsFor(32e12, batch), lr: 2.7e-4 },
  };
}

/** **Source:** config.json of deepseek-ai/DeepSeek-V4-Pro; training from the DeepSeek-V4 report: 33 T tokens. */
export function deepseekV4Pro(): RunSettings {
  const batch = { seqLen: 4096, batchSize: 23040 };
  return {
    model: {
      ...deepseekV4Flash().model,
      dim: 7168,
      moeInterDim: 3072,
      nLayers: 61,
      nHeads: 128,
      qLoraRank: 1536,
      oGroups: 16,
      compressRatios: ratios([128, 128], 29),
      indexTopk: 1024,
      nRoutedExperts: 384,
      routeScale: 2.5,
    },
    training: { ...batch, steps: stepsFor(33e12, batch), lr: 2.0e-4 },
  };
}
