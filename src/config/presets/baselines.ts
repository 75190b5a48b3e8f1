/** Models outside the family, with which it is often compared. */

import type { RunSettings } from "../presets.ts";
import { DENSE, LLAMA_ATTENTION } from "./first.ts";

/** **Source:** config.json of meta-llama/Llama-2-7b-hf. */
export function llama27b(): RunSettings {
  return {
    model: {
      ...LLAMA_ATTENTION,
      ...DENSE,
      vocabSize: 32000,
      dim: 4096,
      interDim: 11008,
      nLayers: 32,
      nDenseLayers: 32,
      nHeads: 32,
      nKvHeads: 32,
      headDim: 128,
      maxSeqLen: 4096,
      rmsNormEps: 1e-5,
      dtype: "f16",
    },
  };
}

/** **Source:** config.json of google-bert/bert-base-uncased. */
export function bertBase(): RunSettings {
  return {
    model: {
      ...DENSE,
      architecture: "encoder",
      attention: "gqa",
      vocabSize: 30522,
      dim: 768,
      interDim: 3072,
      nLayers: 12,
      nDenseLayers: 12,
      nHeads: 12,
      maxSeqLen: 512,
      ropeFactor: 1,
      rmsNormEps: 1e-12,
      tieEmbeddings: true,
      dtype: "f32",
    },
  };
}
