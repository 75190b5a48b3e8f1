/** What the parameters of the blueprint are called in released checkpoints. `*` stands for the expert. */

export interface NameTable {
  /** What stands before the number of a layer, and of an MTP layer where that is another. */
  readonly layers: string;
  readonly mtp?: string;
  readonly top: Readonly<Record<string, string>>;
  readonly inLayer: Readonly<Record<string, string>>;
}

/** LLaMA's names and DeepSeek's additions. **Source:** deepseek-ai/DeepSeek-V3 inference/convert.py, README_WEIGHTS.md. */
export const DEEPSEEK: NameTable = {
  layers: "model.layers",
  top: { embed: "model.embed_tokens.weight", norm: "model.norm.weight", head: "lm_head.weight" },
  inLayer: {
    attn_norm: "input_layernorm.weight",
    ffn_norm: "post_attention_layernorm.weight",
    "attn.wq": "self_attn.q_proj.weight",
    "attn.wk": "self_attn.k_proj.weight",
    "attn.wv": "self_attn.v_proj.weight",
    "attn.wq_a": "self_attn.q_a_proj.weight",
    "attn.q_norm": "self_attn.q_a_layernorm.weight",
    "attn.wq_b": "self_attn.q_b_proj.weight",
    "attn.wkv_a": "self_attn.kv_a_proj_with_mqa.weight",
    "attn.kv_norm": "self_attn.kv_a_layernorm.weight",
    "attn.wkv_b": "self_attn.kv_b_proj.weight",
    "attn.wo": "self_attn.o_proj.weight",
    "attn.indexer.wq_b": "self_attn.indexer.wq_b.weight",
    "attn.indexer.wk": "self_attn.indexer.wk.weight",
    "attn.indexer.k_norm": "self_attn.indexer.k_norm.weight",
    "attn.indexer.k_norm.bias": "self_attn.indexer.k_norm.bias",
    "attn.indexer.weights_proj": "self_attn.indexer.weights_proj.weight",
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
  },
};

const V4_WEIGHTS =
  "attn_norm ffn_norm attn.wq_a attn.q_norm attn.wq_b attn.wkv attn.kv_norm attn.wo_a attn.wo_b " +
  "attn.compressor.wkv attn.compressor.wgate attn.compressor.norm attn.indexer.wq_b attn.indexer.weights_proj " +
  "attn.indexer.compressor.wkv attn.indexer.compressor.wgate attn.indexer.compressor.norm ffn.gate " +
  "ffn.shared_experts.w1 ffn.shared_experts.w2 ffn.shared_experts.w3 e_proj h_proj enorm hnorm norm";

const V4_BARE =
  "attn.attn_sink attn.compressor.ape attn.indexer.compressor.ape ffn.gate.bias ffn.gate.tid2eid " +
  "hc_attn_fn hc_attn_base hc_attn_scale hc_ffn_fn hc_ffn_base hc_ffn_scale hc_head_fn hc_head_base hc_head_scale";

const same = (names: string, ending: string): Record<string, string> =>
  Object.fromEntries(names.split(" ").map((name) => [name, name + ending]));

/** The names of the inference code. **Source:** model.safetensors.index.json of deepseek-ai/DeepSeek-V4-Flash. */
export const V4: NameTable = {
  layers: "layers",
  mtp: "mtp",
  top: { ...same("embed norm head", ".weight"), ...same("hc_head_fn hc_head_base hc_head_scale", "") },
  inLayer: {
    ...same(V4_WEIGHTS, ".weight"),
    ...same(V4_BARE, ""),
    "ffn.experts.w1": "ffn.experts.*.w1.weight",
    "ffn.experts.w2": "ffn.experts.*.w2.weight",
    "ffn.experts.w3": "ffn.experts.*.w3.weight",
  },
};

const biased = (names: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(names).flatMap(([own, hf]) => [
      [own, `${hf}.weight`],
      [`${own}.bias`, `${hf}.bias`],
    ]),
  );

/** **Source:** google-bert/bert-base-uncased, as transformers' BertModel names it. */
export const BERT: NameTable = {
  layers: "encoder.layer",
  top: {
    embed: "embeddings.word_embeddings.weight",
    "embed.position": "embeddings.position_embeddings.weight",
    "embed.token_type": "embeddings.token_type_embeddings.weight",
    ...biased({ embed_norm: "embeddings.LayerNorm", pooler: "pooler.dense" }),
  },
  inLayer: biased({
    "attn.wq": "attention.self.query",
    "attn.wk": "attention.self.key",
    "attn.wv": "attention.self.value",
    "attn.wo": "attention.output.dense",
    attn_norm: "attention.output.LayerNorm",
    "ffn.w1": "intermediate.dense",
    "ffn.w2": "output.dense",
    ffn_norm: "output.LayerNorm",
  }),
};
