/**
 * The tensors of a Hugging Face checkpoint, read from the blueprint: names, shapes, and which parameter (and expert)
 * each one is. **Source:** deepseek-ai/DeepSeek-V3 inference/convert.py and README_WEIGHTS.md.
 */

import { invariant } from "../core/errors.ts";
import type { Blueprint } from "./blueprint.ts";
import type { ParameterSpec } from "./parameter.ts";

export interface CheckpointTensor {
  /** Name in the checkpoint: `model.layers.3.mlp.experts.7.gate_proj.weight`. */
  readonly name: string;
  readonly shape: readonly number[];
  /** Name of the parameter in the blueprint. */
  readonly parameter: string;
  /** Which expert of a stacked parameter; absent when the tensor is the whole parameter. */
  readonly expert?: number;
}

const TOP: Readonly<Record<string, string>> = {
  embed: "model.embed_tokens.weight",
  norm: "model.norm.weight",
  head: "lm_head.weight",
};

const IN_LAYER: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm.weight",
  ffn_norm: "post_attention_layernorm.weight",
  "attn.wq": "self_attn.q_proj.weight",
  "attn.wq_a": "self_attn.q_a_proj.weight",
  "attn.q_norm": "self_attn.q_a_layernorm.weight",
  "attn.wq_b": "self_attn.q_b_proj.weight",
  "attn.wkv_a": "self_attn.kv_a_proj_with_mqa.weight",
  "attn.kv_norm": "self_attn.kv_a_layernorm.weight",
  "attn.wkv_b": "self_attn.kv_b_proj.weight",
  "attn.wo": "self_attn.o_proj.weight",
  "ffn.w1": "mlp.gate_proj.weight",
  "ffn.w2": "mlp.down_proj.weight",
  "ffn.w3": "mlp.up_proj.weight",
  "ffn.gate": "mlp.gate.weight",
  "ffn.gate.bias": "mlp.gate.e_score_correction_bias",
  "ffn.experts.w1": "mlp.experts.*.gate_proj.weight",
  "ffn.experts.w2": "mlp.experts.*.down_proj.weight",
  "ffn.experts.w3": "mlp.experts.*.up_proj.weight",
  "ffn.shared_experts.w1": "mlp.shared_experts.gate_proj.weight",
  "ffn.shared_experts.w2": "mlp.shared_experts.down_proj.weight",
  "ffn.shared_experts.w3": "mlp.shared_experts.up_proj.weight",
  enorm: "enorm.weight",
  hnorm: "hnorm.weight",
  eh_proj: "eh_proj.weight",
  "shared_head.norm": "shared_head.norm.weight",
};

/** Every tensor that a checkpoint of this model must hold; stacked experts are one tensor each. */
export function checkpointNames({ parameters }: Blueprint): CheckpointTensor[] {
  return parameters.flatMap((parameter) => {
    const name = hfName(parameter);
    const [experts, ...expertShape] = parameter.shape;
    if (!name.includes("*")) return [{ name, shape: parameter.shape, parameter: parameter.name }];
    return Array.from({ length: experts! }, (_, expert) => ({
      name: name.replace("*", String(expert)),
      shape: expertShape,
      parameter: parameter.name,
      expert,
    }));
  });
}

/**
 * Further tensors that a checkpoint may hold: copies of the embedding and the head in MTP layers, and of a tied head.
 * Reading passes over them; they are never written.
 */
export function checkpointCopies({ model, parameters }: Blueprint): CheckpointTensor[] {
  const shape = [model.vocabSize, model.dim];
  const head = parameters.some((parameter) => parameter.name === "head") ? "head" : "embed";
  const tied = head === "embed" ? [{ name: "lm_head.weight", shape, parameter: head }] : [];
  const mtp = Array.from({ length: model.nMtpLayers }, (_, k) => {
    const layer = `model.layers.${model.nLayers + k}`;
    return [
      { name: `${layer}.embed_tokens.weight`, shape, parameter: "embed" },
      { name: `${layer}.shared_head.head.weight`, shape, parameter: head },
    ];
  });
  return [...tied, ...mtp.flat()];
}

function hfName({ name }: ParameterSpec): string {
  const inLayer = /^layers\.(\d+)\.(.+)$/.exec(name);
  const hf = inLayer === null ? TOP[name] : IN_LAYER[inLayer[2]!];
  invariant(hf !== undefined, `parameter ${name} has a name in Hugging Face checkpoints`);
  return inLayer === null ? hf : `model.layers.${inLayer[1]}.${hf}`;
}
