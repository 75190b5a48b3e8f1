/** The releases before latent attention: DeepSeek LLM, which is LLaMA's decoder, and DeepSeekMoE. */

import type { RunSettings } from "../presets.ts";
import { stepsFor } from "./steps.ts";

/** A model without experts. */
export const DENSE = { nRoutedExperts: 0, nSharedExperts: 0, nActivatedExperts: 0 } as const;

/** LLaMA's attention: whole heads are rotated, in halves, and the context is not extended. */
export const LLAMA_ATTENTION = { attention: "gqa", ropeTheta: 10000, ropeFactor: 1, ropeInterleave: false } as const;

/** The steps of the learning rate that all three had. */
const STEPPED = { schedule: "piecewise", milestones: [0.8, 0.9], milestoneFactors: [0.316, 0.1] } as const;

/** **Source:** config.json of deepseek-ai/deepseek-llm-7b-base; training from the DeepSeek LLM report, table 2: 2 T tokens. */
export function deepseekLlm7b(): RunSettings {
  const batch = { seqLen: 4096, batchSize: 2304 };
  return {
    model: {
      ...LLAMA_ATTENTION,
      ...DENSE,
      vocabSize: 102400,
      dim: 4096,
      interDim: 11008,
      nLayers: 30,
      nDenseLayers: 30,
      nHeads: 32,
      nKvHeads: 32,
      headDim: 128,
      maxSeqLen: 4096,
      dtype: "bf16",
    },
    training: { ...STEPPED, ...batch, steps: stepsFor(2e12, batch), lr: 4.2e-4 },
  };
}

/** **Source:** config.json of deepseek-ai/deepseek-llm-67b-base; training from the DeepSeek LLM report, table 2: 2 T tokens. */
export function deepseekLlm67b(): RunSettings {
  const batch = { seqLen: 4096, batchSize: 4608 };
  return {
    model: {
      ...deepseekLlm7b().model,
      dim: 8192,
      interDim: 22016,
      nLayers: 95,
      nDenseLayers: 95,
      nHeads: 64,
      nKvHeads: 8,
    },
    training: { ...STEPPED, ...batch, steps: stepsFor(2e12, batch), lr: 3.2e-4 },
  };
}

/** **Source:** config.json of deepseek-ai/deepseek-moe-16b-base; training from the DeepSeekMoE report, 5.1: 106,449 steps. */
export function deepseekMoe16b(): RunSettings {
  return {
    model: {
      ...LLAMA_ATTENTION,
      vocabSize: 102400,
      dim: 2048,
      interDim: 10944,
      moeInterDim: 1408,
      nLayers: 28,
      nDenseLayers: 1,
      nHeads: 16,
      nKvHeads: 16,
      headDim: 128,
      nRoutedExperts: 64,
      nSharedExperts: 2,
      nActivatedExperts: 6,
      scoreFunc: "softmax",
      topkMethod: "greedy",
      normTopkProb: false,
      routeScale: 1,
      maxSeqLen: 4096,
      seqBalanceAlpha: 0.001,
      dtype: "bf16",
    },
    training: { ...STEPPED, seqLen: 4096, batchSize: 4608, steps: 106_449, lr: 4.2e-4 },
  };
}
