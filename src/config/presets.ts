/** Named configurations, as plain objects that say only what differs from the defaults of the rows. */

import { ConfigError, nearest } from "../core/errors.ts";
import type { GenerationConfig, ModelSettings, RuntimeConfig, TrainingSettings } from "./rows.ts";

// oxlint-disable-next-line oxc/approx-constant -- the number of config.json, not √½
const V2_MSCALE = 0.707;

/** A configuration before it is resolved. */
export interface RunSettings {
  readonly model?: Partial<ModelSettings>;
  readonly training?: Partial<TrainingSettings>;
  readonly generation?: Partial<GenerationConfig>;
  readonly runtime?: Partial<RuntimeConfig>;
}

/** Learns English in minutes on two cores, with every mechanism of V3. */
function nano(): RunSettings {
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
function tiny(): RunSettings {
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
function liteSlice(): RunSettings {
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

/** **Source:** config.json of deepseek-ai/DeepSeek-V2-Lite; training from the DeepSeek-V2 report, appendix B. */
function deepseekV2Lite(): RunSettings {
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
      seqLen: 4096,
      batchSize: 4608,
      lr: 4.2e-4,
      schedule: "piecewise",
      milestones: [0.8, 0.9],
      milestoneFactors: [0.316, 0.1],
    },
  };
}

/** **Source:** config.json of deepseek-ai/DeepSeek-V2; training from the DeepSeek-V2 report, 3.1.2. */
function deepseekV2(): RunSettings {
  const lite = deepseekV2Lite();
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
    training: { ...lite.training, batchSize: 9216, lr: 2.4e-4, milestones: [0.6, 0.9] },
  };
}

/** **Source:** config.json of deepseek-ai/DeepSeek-V3; training from the DeepSeek-V3 report, 4.2. */
function deepseekV3(): RunSettings {
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
    training: { seqLen: 4096, batchSize: 15360, lr: 2.2e-4 },
  };
}

const PRESETS: Readonly<Record<string, () => RunSettings>> = {
  nano,
  tiny,
  "lite-slice": liteSlice,
  "deepseek-v2-lite": deepseekV2Lite,
  "deepseek-v2": deepseekV2,
  "deepseek-v3": deepseekV3,
};

export function presetNames(): string[] {
  return Object.keys(PRESETS);
}

/** @throws ConfigError when no preset has this name. */
export function preset(name: string): RunSettings {
  if (Object.hasOwn(PRESETS, name)) return PRESETS[name]!();
  const near = nearest(name, presetNames());
  const cure = near === undefined ? `choose one of ${presetNames().join(", ")}` : `did you mean ${near}?`;
  throw new ConfigError("preset", "must be a known preset", name, cure);
}
