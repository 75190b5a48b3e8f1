/** VL2: a SigLIP tower and a projector before three sizes of DeepSeekMoE. */

import type { RunSettings } from "../presets.ts";
import { deepseekV2Lite } from "./deepseek.ts";
import { deepseekMoe16b } from "./first.ts";

const SEES = { vision: "siglip_so400m", maxSeqLen: 4096, ropeFactor: 1, mscale: 1, mscaleAllDim: 1 } as const;

/** **Source:** config.json of deepseek-ai/deepseek-vl2-tiny. */
export function deepseekVl2Tiny(): RunSettings {
  return {
    model: {
      ...deepseekMoe16b().model,
      ...SEES,
      vocabSize: 129280,
      dim: 1280,
      interDim: 6848,
      moeInterDim: 896,
      nLayers: 12,
      nHeads: 10,
      nKvHeads: 10,
    },
  };
}

/** **Source:** config.json of deepseek-ai/deepseek-vl2-small. */
export function deepseekVl2Small(): RunSettings {
  return { model: { ...deepseekV2Lite().model, ...SEES } };
}

/** **Source:** config.json of deepseek-ai/deepseek-vl2. */
export function deepseekVl2Base(): RunSettings {
  return {
    model: {
      ...deepseekV2Lite().model,
      ...SEES,
      vocabSize: 129280,
      dim: 2560,
      interDim: 12288,
      moeInterDim: 1536,
      nLayers: 30,
      nHeads: 32,
      nRoutedExperts: 72,
      scoreFunc: "sigmoid",
      topkMethod: "noaux_tc",
      normTopkProb: true,
      routeScale: 2,
      seqBalanceAlpha: 0.0001,
    },
  };
}
