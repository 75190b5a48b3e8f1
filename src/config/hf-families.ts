/** What Hugging Face's model types have in common with ours and what each implies: classes, keys, absent values. */

import { FAMILY_ROWS } from "./family-rows.ts";
import { MODEL_ROWS } from "./model-rows.ts";
import type { Row } from "./row.ts";
import type { ModelSettings } from "./rows.ts";

type Setting = keyof ModelSettings;

export interface HfFamily {
  /** The class in `architectures`. */
  readonly modelClass: string;
  /** Settings that have a key of their own, written and read as they are. */
  readonly settings: readonly Setting[];
  /** Keys without which the model cannot be known: the class's own defaults for them describe another one. */
  readonly required: readonly Setting[];
  /** What the type itself says, and what an absent key means to its class. */
  readonly implied: Partial<ModelSettings>;
  /** Keys whose other values name an architecture that this is not; the first value is written. */
  readonly fixed: Readonly<Record<string, readonly unknown[]>>;
}

const SIZES = ["vocabSize", "dim", "nLayers", "nHeads"] as const;
const DECODER = [...SIZES, "maxSeqLen", "rmsNormEps", "tieEmbeddings", "initStd"] as const;
const EXPERTS = ["moeInterDim", "nDenseLayers", "nRoutedExperts", "nActivatedExperts"] as const;
const ROUTER = ["nSharedExperts", "routeScale", "scoreFunc", "topkMethod", "normTopkProb", "seqBalanceAlpha"] as const;
const GROUPS = ["nExpertGroups", "nLimitedGroups"] as const;
const LATENT = ["kvLoraRank", "qkNopeHeadDim", "qkRopeHeadDim", "vHeadDim"] as const;
const INDEXER = ["indexNHeads", "indexHeadDim", "indexTopk"] as const;
const HYPER = ["hcMult", "hcSinkhornIters", "hcEps"] as const;
const OUTPUT = ["oLoraRank", "oGroups", "headDim", "nKvHeads"] as const;

const NO_EXPERTS = { nRoutedExperts: 0, nSharedExperts: 0, nActivatedExperts: 0 } as const;
const SILU = { hidden_act: ["silu"], attention_bias: [false] } as const;
const MOE = { ...SILU, moe_layer_freq: [1] } as const;

const V2_REQUIRED = [...SIZES, "interDim", ...EXPERTS, ...LATENT] as const;
const V2_SETTINGS = [
  ...DECODER,
  "interDim",
  ...EXPERTS,
  ...ROUTER,
  ...GROUPS,
  ...LATENT,
  "ropeInterleave",
  "nMtpLayers",
] as const;

const V2: HfFamily = {
  modelClass: "DeepseekV2ForCausalLM",
  settings: V2_SETTINGS,
  required: V2_REQUIRED,
  implied: {
    attention: "mla",
    qLoraRank: 1536,
    scoreFunc: "softmax",
    topkMethod: "greedy",
    normTopkProb: false,
    nSharedExperts: 2,
    maxSeqLen: 2048,
  },
  fixed: MOE,
};

const V3: HfFamily = {
  ...V2,
  modelClass: "DeepseekV3ForCausalLM",
  implied: {
    attention: "mla",
    qLoraRank: 1536,
    scoreFunc: "sigmoid",
    topkMethod: "noaux_tc",
    normTopkProb: true,
    nSharedExperts: 1,
    routeScale: 2.5,
    nExpertGroups: 8,
    nLimitedGroups: 4,
    maxSeqLen: 4096,
  },
};

const MOE_16B: HfFamily = {
  modelClass: "DeepseekForCausalLM",
  settings: [...DECODER, "interDim", "nKvHeads", "headDim", ...EXPERTS, ...ROUTER],
  required: [...SIZES, "interDim", ...EXPERTS],
  implied: {
    attention: "gqa",
    ropeInterleave: false,
    scoreFunc: "softmax",
    topkMethod: "greedy",
    normTopkProb: false,
    nSharedExperts: 0,
    maxSeqLen: 2048,
  },
  fixed: MOE,
};

/** By `model_type`, those of a language model alone. **Source:** transformers, configuration_*.py of each type. */
export const HF_FAMILIES = {
  llama: {
    modelClass: "LlamaForCausalLM",
    settings: [...DECODER, "interDim", "nKvHeads", "headDim"],
    required: [...SIZES, "interDim"],
    implied: { ...NO_EXPERTS, attention: "gqa", ropeInterleave: false, maxSeqLen: 2048 },
    fixed: { ...SILU, mlp_bias: [false] },
  },
  deepseek: MOE_16B,
  deepseek_v2: V2,
  deepseek_v3: V3,
  deepseek_v32: {
    ...V3,
    modelClass: "DeepseekV32ForCausalLM",
    settings: [...V2_SETTINGS, ...INDEXER],
    implied: { ...V3.implied, indexNHeads: 64, indexHeadDim: 128, indexTopk: 2048 },
  },
  deepseek_v4: {
    modelClass: "DeepseekV4ForCausalLM",
    settings: [
      ...DECODER,
      ...EXPERTS.filter((name) => name !== "nDenseLayers"),
      ...ROUTER.filter((name) => name !== "seqBalanceAlpha"),
      ...INDEXER,
      ...HYPER,
      ...OUTPUT,
      "qLoraRank",
      "qkRopeHeadDim",
      "windowSize",
      "compressRatios",
      "compressRopeTheta",
      "nHashLayers",
      "swigluLimit",
      "expertDtype",
      "nMtpLayers",
    ],
    required: [
      ...SIZES,
      ...EXPERTS.filter((name) => name !== "nDenseLayers"),
      ...INDEXER,
      "qLoraRank",
      "oLoraRank",
      "oGroups",
      "headDim",
      "qkRopeHeadDim",
      "compressRatios",
      "nHashLayers",
      "hcMult",
    ],
    implied: {
      attention: "csa",
      nDenseLayers: 0,
      scoreFunc: "sqrtsoftplus",
      topkMethod: "noaux_tc",
      normTopkProb: true,
      nSharedExperts: 1,
      swigluLimit: 10,
      maxSeqLen: 1048576,
    },
    fixed: SILU,
  },
  bert: {
    modelClass: "BertModel",
    settings: [...SIZES, "interDim", "maxSeqLen", "initStd"],
    required: [...SIZES, "interDim"],
    implied: {
      ...NO_EXPERTS,
      architecture: "encoder",
      attention: "gqa",
      ropeFactor: 1,
      maxSeqLen: 512,
      tieEmbeddings: true,
    },
    fixed: { hidden_act: ["gelu"], position_embedding_type: ["absolute"], type_vocab_size: [2] },
  },
} as const satisfies Record<string, HfFamily>;

export type HfType = keyof typeof HF_FAMILIES;

/** The type that a model's language part is. */
export function hfTypeOf(model: ModelSettings): HfType {
  if (model.architecture === "encoder") return "bert";
  if (model.attention === "csa") return "deepseek_v4";
  if (model.attention === "gqa") return model.nDenseLayers < model.nLayers ? "deepseek" : "llama";
  if (model.indexNHeads > 0) return "deepseek_v32";
  return model.topkMethod === "noaux_tc" ? "deepseek_v3" : "deepseek_v2";
}

const ROWS: Readonly<Record<string, Row>> = { ...MODEL_ROWS, ...FAMILY_ROWS };

/** The key of a setting in `config.json`. */
export function hfKeyOf(setting: Setting): string {
  return ROWS[setting]!.aliases!.hf!;
}
