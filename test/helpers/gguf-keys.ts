/** The metadata that llama.cpp's converter writes for each architecture, at the sizes of a preset. */

import { resolveConfig, type ModelConfig } from "../../src/config/index.ts";
import type { GgufEntry } from "../../src/formats/gguf-writer.ts";

type Keys = Record<string, GgufEntry>;

const u32 = (value: number): GgufEntry => ({ type: "u32", value });
const f32 = (value: number): GgufEntry => ({ type: "f32", value });
const GATING = { softmax: 1, sigmoid: 2, sqrtsoftplus: 4 } as const;

/** Keys of a preset or a model as `llama`, `deepseek`, `deepseek2`, `deepseek32` or `deepseek4` without their prefix. */
export function ggufKeys(preset: string | ModelConfig, arch: string, splitKvB = true): Keys {
  const model = typeof preset === "string" ? resolveConfig({ preset }).model : preset;
  return {
    block_count: u32(model.nLayers),
    context_length: u32(model.maxSeqLen),
    embedding_length: u32(model.dim),
    "attention.head_count": u32(model.nHeads),
    "attention.layer_norm_rms_epsilon": f32(model.rmsNormEps),
    "rope.freq_base": f32(model.ropeTheta),
    "rope.dimension_count": u32(model.qkRopeHeadDim),
    ...(model.attention === "csa" ? {} : { feed_forward_length: u32(model.interDim) }),
    ...experts(model, arch),
    ...heads(model, splitKvB),
    ...yarn(model),
  };
}

function experts(model: ModelConfig, arch: string): Keys {
  if (model.nRoutedExperts === 0) return {};
  const groups = {
    expert_group_count: u32(model.nExpertGroups),
    expert_group_used_count: u32(model.nLimitedGroups),
  };
  return {
    ...(arch === "deepseek4" ? {} : { leading_dense_block_count: u32(model.nDenseLayers) }),
    expert_count: u32(model.nRoutedExperts),
    expert_used_count: u32(model.nActivatedExperts),
    expert_shared_count: u32(model.nSharedExperts),
    expert_feed_forward_length: u32(model.moeInterDim),
    expert_weights_scale: f32(model.routeScale),
    ...(arch === "deepseek" ? {} : { expert_gating_func: u32(GATING[model.scoreFunc]) }),
    ...(arch === "deepseek" ? {} : { expert_weights_norm: { type: "bool", value: model.normTopkProb } as const }),
    ...(model.nExpertGroups > 1 ? groups : {}),
  };
}

function heads(model: ModelConfig, splitKvB: boolean): Keys {
  const indexer = {
    "attention.indexer.head_count": u32(model.indexNHeads),
    "attention.indexer.key_length": u32(model.indexHeadDim),
    "attention.indexer.top_k": u32(model.indexTopk),
  };
  if (model.attention === "gqa") return { "attention.head_count_kv": u32(model.nKvHeads) };
  if (model.attention === "csa") return { ...compressed(model), ...indexer };
  const [key, value] = [model.qkHeadDim, model.vHeadDim];
  return {
    ...(model.qLoraRank > 0 ? { "attention.q_lora_rank": u32(model.qLoraRank) } : {}),
    "attention.kv_lora_rank": u32(model.kvLoraRank),
    "attention.head_count_kv": u32(splitKvB ? 1 : model.nHeads),
    "attention.key_length": u32(splitKvB ? model.kvLoraRank + model.qkRopeHeadDim : key),
    "attention.value_length": u32(splitKvB ? model.kvLoraRank : value),
    ...(splitKvB ? { "attention.key_length_mla": u32(key), "attention.value_length_mla": u32(value) } : {}),
    ...(model.indexNHeads > 0 ? indexer : {}),
  };
}

function compressed(model: ModelConfig): Keys {
  const layers = Array.from({ length: model.nLayers }, () => model.swigluLimit);
  return {
    "attention.head_count_kv": u32(1),
    "attention.key_length": u32(model.headDim),
    "attention.value_length": u32(model.headDim),
    "attention.q_lora_rank": u32(model.qLoraRank),
    "attention.sliding_window": u32(model.windowSize),
    "attention.output_group_count": u32(model.oGroups),
    "attention.output_lora_rank": u32(model.oLoraRank),
    "attention.compress_ratios": { type: "list", of: "i32", values: model.compressRatios },
    "attention.compress_rope_freq_base": f32(model.compressRopeTheta),
    "hyper_connection.count": u32(model.hcMult),
    "hyper_connection.sinkhorn_iterations": u32(model.hcSinkhornIters),
    "hyper_connection.epsilon": f32(model.hcEps),
    hash_layer_count: u32(model.nHashLayers),
    swiglu_clamp_exp: { type: "list", of: "f32", values: layers },
  };
}

function yarn(model: ModelConfig): Keys {
  if (model.ropeFactor === 1) return { "rope.scaling.type": { type: "text", value: "none" } };
  const multiplier = { "rope.scaling.yarn_log_multiplier": f32(0.1 * model.mscaleAllDim) };
  return {
    "rope.scaling.type": { type: "text", value: "yarn" },
    "rope.scaling.factor": f32(model.ropeFactor),
    "rope.scaling.original_context_length": u32(model.originalSeqLen),
    "rope.scaling.yarn_beta_fast": f32(model.betaFast),
    "rope.scaling.yarn_beta_slow": f32(model.betaSlow),
    ...(model.attention === "mla" ? multiplier : {}),
  };
}
