/**
 * The tensors of a model's GGUF file as llama.cpp's converter writes them: names, widths and order. The projection
 * from the latent is split into its key and value halves, expert stacks stay stacked, MTP layers are left out.
 *
 * **Source:** llama.cpp v0.5.0, conversion/deepseek.py and src/llama-model-loader.h (order).
 */

import type { Blueprint, ParameterSpec } from "../blueprint/index.ts";
import { countElements } from "../blueprint/index.ts";
import type { ModelConfig } from "../config/index.ts";
import { UnsupportedError } from "../core/errors.ts";

/** Where a local run keeps a tensor and how often a token reads it. */
export type GgufRole = "embedding" | "expert" | "attention" | "other";

export interface GgufTensor {
  /** `blk.3.ffn_down_exps.weight`. */
  readonly name: string;
  /** Layer of `blk.N`, −1 outside the layers. */
  readonly layer: number;
  /** Values in one row (ne[0]), which must hold whole blocks. */
  readonly columns: number;
  readonly elements: number;
  /** Dimensions above 1, which decides whether it may be quantised. */
  readonly dims: number;
  readonly role: GgufRole;
  /** Share of the elements that one token uses. */
  readonly activeShare: number;
}

const TOP: Readonly<Record<string, string>> = {
  embed: "token_embd.weight",
  norm: "output_norm.weight",
  head: "output.weight",
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
  "attn.kv_norm": "attn_kv_a_norm.weight",
  "attn.wo": "attn_output.weight",
  "ffn.w1": "ffn_gate.weight",
  "ffn.w2": "ffn_down.weight",
  "ffn.w3": "ffn_up.weight",
  "ffn.gate": "ffn_gate_inp.weight",
  "ffn.gate.bias": "exp_probs_b.bias",
  "ffn.experts.w1": "ffn_gate_exps.weight",
  "ffn.experts.w2": "ffn_down_exps.weight",
  "ffn.experts.w3": "ffn_up_exps.weight",
  "ffn.shared_experts.w1": "ffn_gate_shexp.weight",
  "ffn.shared_experts.w2": "ffn_down_shexp.weight",
  "ffn.shared_experts.w3": "ffn_up_shexp.weight",
};

/**
 * Every tensor of the file in llama.cpp's order: by layer, then by name.
 *
 * @throws UnsupportedError for an architecture whose tensors the converter names otherwise.
 */
export function ggufTensors({ model, parameters }: Blueprint): GgufTensor[] {
  return parameters
    .filter(({ mtp }) => !mtp)
    .flatMap((parameter) => convert(model, parameter))
    .toSorted((a, b) => a.layer - b.layer || (a.name < b.name ? -1 : 1));
}

function convert(model: ModelConfig, parameter: ParameterSpec): GgufTensor[] {
  const inLayer = /^layers\.(\d+)\.(.+)$/.exec(parameter.name);
  const layer = inLayer === null ? -1 : Number(inLayer[1]);
  const part = inLayer?.[2] ?? parameter.name;
  const tensor = (name: string, shape: readonly number[]): GgufTensor => ({
    name: layer < 0 ? name : `blk.${layer}.${name}`,
    layer,
    columns: shape.at(-1)!,
    elements: countElements(shape),
    dims: shape.length,
    role: roleOf(parameter),
    activeShare: parameter.activeShare,
  });
  if (part === "attn.wkv_b") {
    const { nHeads, kvLoraRank, qkNopeHeadDim, vHeadDim } = model;
    return [
      tensor("attn_k_b.weight", [nHeads, kvLoraRank, qkNopeHeadDim]),
      tensor("attn_v_b.weight", [nHeads, vHeadDim, kvLoraRank]),
    ];
  }
  const name = layer < 0 ? TOP[part] : IN_LAYER[part];
  if (name !== undefined) return [tensor(name, parameter.shape)];
  throw new UnsupportedError("gguf", "parameters must be those of llama, deepseek or deepseek2", parameter.name, [
    "MLA and grouped-query attention",
    "dense and DeepSeekMoE layers",
  ]);
}

function roleOf({ group }: ParameterSpec): GgufRole {
  if (group === "embedding") return "embedding";
  if (group === "routed_experts") return "expert";
  return group === "attention" ? "attention" : "other";
}
