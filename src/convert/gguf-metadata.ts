/**
 * The metadata of a GGUF file of a model, and the rules under which llama.cpp loads it and computes the same: what breaks
 * one is refused with the reason.
 *
 * **Source:** ggml-org/llama.cpp src/models/deepseek.cpp, deepseek2.cpp, llama.cpp, src/llama-model.cpp (checks of groups).
 */

import { GGUF_GATING, type ModelConfig } from "../config/index.ts";
import { UnsupportedError } from "../core/errors.ts";
import type { GgufEntry } from "../formats/index.ts";

export type GgufArchitecture = "llama" | "deepseek" | "deepseek2";
type Entries = Readonly<Record<string, GgufEntry>>;

const u32 = (value: number): GgufEntry => ({ type: "u32", value });
const f32 = (value: number): GgufEntry => ({ type: "f32", value });
const bool = (value: boolean): GgufEntry => ({ type: "bool", value });
const text = (value: string): GgufEntry => ({ type: "text", value });

export interface GgufKeys {
  readonly architecture: GgufArchitecture;
  readonly metadata: ReadonlyMap<string, GgufEntry>;
  /** What the file will not hold, or llama.cpp computes in another way. */
  readonly notices: readonly string[];
}

/** @throws UnsupportedError when llama.cpp cannot load such a model, or would compute something else. */
export function ggufKeys(model: ModelConfig): GgufKeys {
  const architecture = architectureOf(model);
  const own = architecture === "deepseek2" ? latentKeys(model) : plainKeys(model, architecture);
  const keys = { ...commonKeys(model), ...own };
  const metadata = new Map<string, GgufEntry>([
    ["general.architecture", text(architecture)],
    ...Object.entries(keys).map(([key, entry]): [string, GgufEntry] => [`${architecture}.${key}`, entry]),
  ]);
  return { architecture, metadata, notices: noticesOf(model) };
}

function refuse(setting: string, rule: string, got: unknown, cure = "keep it as safetensors"): UnsupportedError {
  return new UnsupportedError(`gguf ${setting}`, rule, got, [], cure);
}

function architectureOf(model: ModelConfig): GgufArchitecture {
  if (model.architecture === "encoder") throw refuse("architecture", "must be a decoder", model.architecture);
  if (model.vision !== null) throw refuse("vision", "must be a model of text alone", model.vision);
  if (model.attention === "csa") throw refuse("attention", "must be mla or gqa", "csa");
  if (model.indexNHeads > 0) throw refuse("index_n_heads", "must be 0", model.indexNHeads);
  if (model.attention === "mla") return "deepseek2";
  return model.nDenseLayers < model.nLayers ? "deepseek" : "llama";
}

function commonKeys(model: ModelConfig): Entries {
  return {
    vocab_size: u32(model.vocabSize),
    block_count: u32(model.nLayers),
    context_length: u32(model.maxSeqLen),
    embedding_length: u32(model.dim),
    feed_forward_length: u32(model.interDim),
    "attention.head_count": u32(model.nHeads),
    "attention.layer_norm_rms_epsilon": f32(model.rmsNormEps),
    "rope.freq_base": f32(model.ropeTheta),
  };
}

/** `llama`, and `deepseek`, which is softmax without normalisation whatever its keys say. */
function plainKeys(model: ModelConfig, architecture: GgufArchitecture): Entries {
  const { headDim, nHeads, dim, ropeFactor, ropeInterleave } = model;
  if (ropeInterleave) throw refuse("rope_interleave", `must be false for ${architecture}`, ropeInterleave);
  if (ropeFactor !== 1) throw refuse("rope_factor", `must be 1 for ${architecture}`, ropeFactor);
  if (headDim * nHeads !== dim) throw refuse("head_dim", `must be dim / n_heads = ${dim / nHeads}`, headDim);
  return {
    "attention.head_count_kv": u32(model.nKvHeads),
    "attention.key_length": u32(headDim),
    "attention.value_length": u32(headDim),
    "rope.dimension_count": u32(headDim),
    "rope.scaling.type": text("none"),
    ...(architecture === "deepseek" ? plainExperts(model) : {}),
  };
}

function plainExperts(model: ModelConfig): Entries {
  if (model.scoreFunc !== "softmax") throw refuse("score_func", "must be softmax for deepseek", model.scoreFunc);
  if (model.normTopkProb) throw refuse("norm_topk_prob", "must be false for deepseek", true);
  if (model.nExpertGroups > 1) throw refuse("n_expert_groups", "must be 1 for deepseek", model.nExpertGroups);
  return expertKeys(model);
}

function expertKeys(model: ModelConfig): Entries {
  if (model.nSharedExperts < 1) throw refuse("n_shared_experts", "must be at least 1", model.nSharedExperts);
  return {
    leading_dense_block_count: u32(model.nDenseLayers),
    expert_count: u32(model.nRoutedExperts),
    expert_used_count: u32(model.nActivatedExperts),
    expert_shared_count: u32(model.nSharedExperts),
    expert_feed_forward_length: u32(model.moeInterDim),
    expert_weights_scale: f32(model.routeScale),
    expert_weights_norm: bool(model.normTopkProb),
    expert_gating_func: u32(GGUF_GATING[model.scoreFunc]),
  };
}

/** `deepseek2` with the kv projection split for absorbed attention: one key head as wide as latent and rotated part. */
function latentKeys(model: ModelConfig): Entries {
  checkLayerCount(model);
  if (!model.ropeInterleave) throw refuse("rope_interleave", "must be true for deepseek2", model.ropeInterleave);
  return {
    "attention.head_count_kv": u32(1),
    "attention.q_lora_rank": u32(model.qLoraRank),
    "attention.kv_lora_rank": u32(model.kvLoraRank),
    "attention.key_length": u32(model.kvLoraRank + model.qkRopeHeadDim),
    "attention.value_length": u32(model.kvLoraRank),
    "attention.key_length_mla": u32(model.qkHeadDim),
    "attention.value_length_mla": u32(model.vHeadDim),
    "rope.dimension_count": u32(model.qkRopeHeadDim),
    ...yarnKeys(model),
    ...(model.nDenseLayers < model.nLayers ? { ...expertKeys(model), ...groupKeys(model) } : denseKeys(model)),
  };
}

/** The loader asks for these also where every layer is dense. */
function denseKeys(model: ModelConfig): Entries {
  return {
    leading_dense_block_count: u32(model.nLayers),
    expert_shared_count: u32(0),
    expert_feed_forward_length: u32(model.interDim),
  };
}

/** Models with these sizes are taken for V2-Lite and its kin, and their compressed queries are not looked for. */
function checkLayerCount({ nLayers, vocabSize, qLoraRank }: ModelConfig): void {
  const isLite = nLayers === 26 || nLayers === 27 || (nLayers === 48 && vocabSize === 128256);
  if (!isLite || qLoraRank === 0) return;
  throw refuse("q_lora_rank", `must be 0 with ${nLayers} layers, which llama.cpp takes for V2-Lite`, qLoraRank);
}

function groupKeys(model: ModelConfig): Entries {
  const { nExpertGroups: groups, nLimitedGroups: used, nRoutedExperts: experts } = model;
  // One group, or all of them allowed, limits nothing.
  if (groups === 1 || used === groups) return {};
  if (used <= 1) throw refuse("n_limited_groups", "must be above 1 with groups", used);
  if (experts < 2 * groups) throw refuse("n_expert_groups", `must leave 2 of ${experts} experts in a group`, groups);
  return { expert_group_count: u32(groups), expert_group_used_count: u32(used) };
}

function yarnKeys(model: ModelConfig): Entries {
  if (model.ropeFactor === 1) return { "rope.scaling.type": text("none") };
  const { mscale, mscaleAllDim } = model;
  if (mscale !== mscaleAllDim || mscale === 0) {
    throw refuse("mscale_all_dim", `must equal mscale (${mscale}) and not be 0 with YaRN`, mscaleAllDim);
  }
  return {
    "rope.scaling.type": text("yarn"),
    "rope.scaling.factor": f32(model.ropeFactor),
    "rope.scaling.original_context_length": u32(model.originalSeqLen),
    "rope.scaling.yarn_beta_fast": f32(model.betaFast),
    "rope.scaling.yarn_beta_slow": f32(model.betaSlow),
    // Loaders divide by 0.1.
    "rope.scaling.yarn_log_multiplier": f32(0.1 * mscaleAllDim),
  };
}

function noticesOf(model: ModelConfig): string[] {
  const { nMtpLayers, nExpertGroups, nLimitedGroups, scoreFunc } = model;
  const mtp = `${nMtpLayers} MTP layer${nMtpLayers === 1 ? " is" : "s are"} left out: llama.cpp does not run MTP here`;
  const groups =
    "llama.cpp picks groups by the sum of their two best experts, this model by the best one: it will route otherwise";
  const isLimited = nExpertGroups > 1 && nLimitedGroups < nExpertGroups;
  return [...(nMtpLayers > 0 ? [mtp] : []), ...(isLimited && scoreFunc === "softmax" ? [groups] : [])];
}
