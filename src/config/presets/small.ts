/** Sizes for this machine: to learn with, to test with, to measure with. */

import type { RunSettings } from "../presets.ts";
import { deepseekV2Lite } from "./deepseek.ts";

/** Learns English in minutes on two cores, with every mechanism of V3. */
export function nano(): RunSettings {
  return {
    model: {
      vocabSize: 2048,
      dim: 192,
      interDim: 512,
      moeInterDim: 96,
      nLayers: 4,
      nDenseLayers: 1,
      nHeads: 4,
      nRoutedExperts: 16,
      nSharedExperts: 1,
      nActivatedExperts: 4,
      scoreFunc: "sigmoid",
      qLoraRank: 0,
      kvLoraRank: 64,
      qkNopeHeadDim: 32,
      qkRopeHeadDim: 16,
      vHeadDim: 32,
      originalSeqLen: 256,
      ropeFactor: 4,
      maxSeqLen: 1024,
      nMtpLayers: 1,
      routerBiasSpeed: 5e-3,
      dtype: "f32",
    },
    training: { seqLen: 256, batchSize: 4, steps: 1200, lr: 4e-3, precision: "bf16" },
  };
}

/** Runs in milliseconds, for tests: every branch of the architecture in its smallest size. */
export function tiny(): RunSettings {
  return {
    model: {
      vocabSize: 512,
      dim: 32,
      interDim: 64,
      moeInterDim: 16,
      nLayers: 2,
      nDenseLayers: 1,
      nHeads: 2,
      nRoutedExperts: 8,
      nSharedExperts: 1,
      nActivatedExperts: 2,
      nExpertGroups: 4,
      nLimitedGroups: 2,
      scoreFunc: "sigmoid",
      qLoraRank: 16,
      kvLoraRank: 16,
      qkNopeHeadDim: 8,
      qkRopeHeadDim: 8,
      vHeadDim: 8,
      originalSeqLen: 64,
      ropeFactor: 4,
      maxSeqLen: 256,
      nMtpLayers: 1,
      dtype: "f32",
    },
    training: { seqLen: 64, batchSize: 4, steps: 20, lr: 3e-3 },
  };
}

/** Four layers of V2-Lite at half its width, to measure speed on shapes like the real ones. */
export function liteSlice(): RunSettings {
  return {
    model: {
      ...deepseekV2Lite().model,
      vocabSize: 8192,
      dim: 1024,
      interDim: 5472,
      moeInterDim: 704,
      nLayers: 4,
      nHeads: 8,
      nRoutedExperts: 16,
      maxSeqLen: 4096,
      dtype: "f32",
    },
    training: { seqLen: 512, batchSize: 4 },
  };
}
