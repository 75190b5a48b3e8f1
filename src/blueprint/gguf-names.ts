/**
 * The tensors of a GGUF file, read from the blueprint: names, shapes (outermost axis first) and of which parameters each
 * one is made. **Source:** ggml-org/llama.cpp src/llama-arch.cpp (names) and src/models/deepseek*.cpp (shapes).
 */

import { UnsupportedError } from "../core/errors.ts";
import type { Blueprint } from "./blueprint.ts";
import type { ParameterSpec } from "./parameter.ts";

export interface GgufTensorName {
  /** `blk.3.ffn_gate_exps.weight` */
  readonly name: string;
  readonly shape: readonly number[];
  /** Names of the parameters in the blueprint: one, or the two that make an MTP projection of V4. */
  readonly parameters: readonly string[];
  /**
   * How the values stand there. `same`: as in the parameter. `keys` and `values`: one half of each head of wkv_b, the
   * keys transposed. `halves`: rows of queries or keys of each head reordered from half-split to interleaved rotation.
   * `joined`: the parameters' columns side by side.
   */
  readonly layout: "same" | "keys" | "values" | "halves" | "joined";
}

export interface GgufLayout {
  /** Whether wkv_b is split into keys and values for absorbed attention, as llama.cpp writes since April 2025. */
  readonly splitKvB: boolean;
}

const TOP: Readonly<Record<string, string>> = {
  embed: "token_embd.weight",
  norm: "output_norm.weight",
  head: "output.weight",
  hc_head_fn: "output_hc_fn.weight",
  hc_head_base: "output_hc_base.weight",
  hc_head_scale: "output_hc_scale.weight",
};

const IN_LAYER: Readonly<Record<string, string>> = {
  attn_norm: "attn_norm.weight",
  ffn_norm: "ffn_norm.weight",
  "attn.wq": "attn_q.weight",
  "attn.wk": "attn_k.weight",
  "attn.wv": "attn_v.weight",
  "attn.wq_a": "attn_q_a.weight",
  "attn.q_norm": "attn_q_a_norm.weight",
  "attn.wq_b": "attn_q_b.weight",
  "attn.wkv_a": "attn_kv_a_mqa.weight",
  "attn.wkv": "attn_kv.weight",
  "attn.kv_norm": "attn_kv_a_norm.weight",
  "attn.wkv_b": "attn_kv_b.weight",
  "attn.wo": "attn_output.weight",
  "attn.wo_a": "attn_output_a.weight",
  "attn.wo_b": "attn_output_b.weight",
  "attn.attn_sink": "attn_sinks.weight",
  "attn.indexer.wq_b": "indexer.attn_q_b.weight",
  "attn.indexer.wk": "indexer.attn_k.weight",
  "attn.indexer.k_norm": "indexer.k_norm.weight",
  "attn.indexer.k_norm.bias": "indexer.k_norm.bias",
  "attn.indexer.weights_proj": "indexer.proj.weight",
  "attn.indexer.compressor.wkv": "indexer_compressor_kv.weight",
  "attn.indexer.compressor.wgate": "indexer_compressor_gate.weight",
  "attn.indexer.compressor.ape": "indexer_compressor_ape.weight",
  "attn.indexer.compressor.norm": "indexer_compressor_norm.weight",
  "attn.compressor.wkv": "attn_compressor_kv.weight",
  "attn.compressor.wgate": "attn_compressor_gate.weight",
  "attn.compressor.ape": "attn_compressor_ape.weight",
  "attn.compressor.norm": "attn_compressor_norm.weight",
  hc_attn_fn: "hc_attn_fn.weight",
  hc_attn_base: "hc_attn_base.weight",
  hc_attn_scale: "hc_attn_scale.weight",
  hc_ffn_fn: "hc_ffn_fn.weight",
  hc_ffn_base: "hc_ffn_base.weight",
  hc_ffn_scale: "hc_ffn_scale.weight",
  "ffn.w1": "ffn_gate.weight",
  "ffn.w2": "ffn_down.weight",
  "ffn.w3": "ffn_up.weight",
  "ffn.gate": "ffn_gate_inp.weight",
  "ffn.gate.bias": "exp_probs_b.bias",
  "ffn.gate.tid2eid": "ffn_gate_tid2eid.weight",
  "ffn.experts.w1": "ffn_gate_exps.weight",
  "ffn.experts.w2": "ffn_down_exps.weight",
  "ffn.experts.w3": "ffn_up_exps.weight",
  "ffn.shared_experts.w1": "ffn_gate_shexp.weight",
  "ffn.shared_experts.w2": "ffn_down_shexp.weight",
  "ffn.shared_experts.w3": "ffn_up_shexp.weight",
  eh_proj: "nextn.eh_proj.weight",
  enorm: "nextn.enorm.weight",
  hnorm: "nextn.hnorm.weight",
  norm: "nextn.shared_head_norm.weight",
  "shared_head.norm": "nextn.shared_head_norm.weight",
};

/** Tensors that llama.cpp reads where they are and does without where they are not, or computes anew. */
const OPTIONAL =
  /^(?:rope_freqs\.weight|output\.weight|blk\.\d+\.(?:attn_rot_embd|nextn\.(?:embed_tokens|shared_head_head))\.weight)$/;

export function isOptionalInGguf(name: string): boolean {
  return OPTIONAL.test(name);
}

/** Every tensor that a GGUF file of this model must hold. @throws UnsupportedError for a part that GGUF has no name for. */
export function ggufNames(blueprint: Blueprint, layout: GgufLayout): GgufTensorName[] {
  return blueprint.parameters.flatMap((parameter) => namesOf(parameter, blueprint, layout));
}

function namesOf(parameter: ParameterSpec, blueprint: Blueprint, { splitKvB }: GgufLayout): GgufTensorName[] {
  const [, layer, part] = /^layers\.(\d+)\.(.+)$/.exec(parameter.name) ?? [undefined, undefined, parameter.name];
  const entry = (name: string, shape: readonly number[], kind: GgufTensorName["layout"]): GgufTensorName => ({
    name: layer === undefined ? name : `blk.${layer}.${name}`,
    shape,
    parameters: [parameter.name],
    layout: kind,
  });
  const { model } = blueprint;
  if (part === "attn.wkv_b" && splitKvB) {
    const { nHeads, kvLoraRank, qkNopeHeadDim, vHeadDim } = model;
    return [
      entry("attn_k_b.weight", [nHeads, kvLoraRank, qkNopeHeadDim], "keys"),
      entry("attn_v_b.weight", [nHeads, vHeadDim, kvLoraRank], "values"),
    ];
  }
  if (part === "h_proj") return [];
  if (part === "e_proj") return [joinedProjection(parameter, layer!)];
  const name = layer === undefined ? TOP[part] : IN_LAYER[part];
  if (name === undefined) {
    throw new UnsupportedError(
      "gguf",
      "must have a name for every parameter",
      parameter.name,
      [],
      "keep it as safetensors",
    );
  }
  const isRotated = model.attention === "gqa" && (part === "attn.wq" || part === "attn.wk");
  return [entry(name, parameter.shape, isRotated ? "halves" : "same")];
}

/** V4 has the two halves of the MTP projection apart. */
function joinedProjection({ name, shape }: ParameterSpec, layer: string): GgufTensorName {
  const [out, columns] = shape as [number, number];
  const other = name.replace(/e_proj$/, "h_proj");
  return {
    name: `blk.${layer}.nextn.eh_proj.weight`,
    shape: [out, 2 * columns],
    parameters: [name, other],
    layout: "joined",
  };
}
