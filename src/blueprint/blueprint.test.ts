import { describe, expect, test } from "vitest";
import { presetNames, resolveConfig } from "../config/index.ts";
import {
  blueprint,
  checkpointCopies,
  checkpointNames,
  countElements,
  releasedTensors,
  type Blueprint,
} from "./index.ts";

const describeModel = (preset: string, overrides = {}): Blueprint => blueprint(resolveConfig(preset, overrides).model);

describe("the tree", () => {
  test("every parameter stands once", () => {
    for (const preset of presetNames()) {
      const names = describeModel(preset).parameters.map((parameter) => parameter.name);
      expect(new Set(names).size).toBe(names.length);
    }
  });

  test("the parameters of a tiny V3 have DeepSeek's names and shapes", () => {
    const { parameters } = describeModel("tiny");
    const lines = parameters
      .filter(({ name }) => !name.startsWith("layers.0."))
      .map((p) => `${p.name} [${p.shape.join(", ")}] ${p.init.kind} ${p.kind} ${p.group}${p.decay ? " decay" : ""}`);
    expect(lines).toMatchInlineSnapshot(`
      [
        "embed [512, 32] normal trainable embedding decay",
        "norm [32] ones trainable norms",
        "head [512, 32] normal trainable head decay",
        "layers.1.attn_norm [32] ones trainable norms",
        "layers.1.ffn_norm [32] ones trainable norms",
        "layers.1.attn.wq_a [16, 32] normal trainable attention decay",
        "layers.1.attn.q_norm [16] ones trainable norms",
        "layers.1.attn.wq_b [32, 16] normal trainable attention decay",
        "layers.1.attn.wkv_a [24, 32] normal trainable attention decay",
        "layers.1.attn.kv_norm [16] ones trainable norms",
        "layers.1.attn.wkv_b [32, 16] normal trainable attention decay",
        "layers.1.attn.wo [32, 16] normal trainable attention decay",
        "layers.1.ffn.gate [8, 32] normal trainable gates decay",
        "layers.1.ffn.gate.bias [8] zeros buffer gates",
        "layers.1.ffn.experts.w1 [8, 16, 32] normal trainable routed_experts decay",
        "layers.1.ffn.experts.w2 [8, 32, 16] normal trainable routed_experts decay",
        "layers.1.ffn.experts.w3 [8, 16, 32] normal trainable routed_experts decay",
        "layers.1.ffn.shared_experts.w1 [16, 32] normal trainable shared_experts decay",
        "layers.1.ffn.shared_experts.w2 [32, 16] normal trainable shared_experts decay",
        "layers.1.ffn.shared_experts.w3 [16, 32] normal trainable shared_experts decay",
        "layers.2.enorm [32] ones trainable norms",
        "layers.2.hnorm [32] ones trainable norms",
        "layers.2.eh_proj [32, 64] normal trainable mtp decay",
        "layers.2.attn_norm [32] ones trainable norms",
        "layers.2.ffn_norm [32] ones trainable norms",
        "layers.2.shared_head.norm [32] ones trainable norms",
        "layers.2.attn.wq_a [16, 32] normal trainable attention decay",
        "layers.2.attn.q_norm [16] ones trainable norms",
        "layers.2.attn.wq_b [32, 16] normal trainable attention decay",
        "layers.2.attn.wkv_a [24, 32] normal trainable attention decay",
        "layers.2.attn.kv_norm [16] ones trainable norms",
        "layers.2.attn.wkv_b [32, 16] normal trainable attention decay",
        "layers.2.attn.wo [32, 16] normal trainable attention decay",
        "layers.2.ffn.gate [8, 32] normal trainable gates decay",
        "layers.2.ffn.gate.bias [8] zeros buffer gates",
        "layers.2.ffn.experts.w1 [8, 16, 32] normal trainable routed_experts decay",
        "layers.2.ffn.experts.w2 [8, 32, 16] normal trainable routed_experts decay",
        "layers.2.ffn.experts.w3 [8, 16, 32] normal trainable routed_experts decay",
        "layers.2.ffn.shared_experts.w1 [16, 32] normal trainable shared_experts decay",
        "layers.2.ffn.shared_experts.w2 [32, 16] normal trainable shared_experts decay",
        "layers.2.ffn.shared_experts.w3 [16, 32] normal trainable shared_experts decay",
      ]
    `);
  });

  test("V4 adds compressors, an indexer where the ratio is 4, streams, a sink and a table", () => {
    const names = (layer: number): string[] =>
      describeModel("deepseek-v4-flash")
        .parameters.filter(({ name }) => name.startsWith(`layers.${layer}.`))
        .map(({ name, shape }) => `${name.slice(`layers.${layer}.`.length)} [${shape.join(", ")}]`);
    expect(names(2)).toMatchInlineSnapshot(`
      [
        "attn_norm [4096]",
        "ffn_norm [4096]",
        "hc_attn_fn [24, 16384]",
        "hc_attn_base [24]",
        "hc_attn_scale [3]",
        "hc_ffn_fn [24, 16384]",
        "hc_ffn_base [24]",
        "hc_ffn_scale [3]",
        "attn.wq_a [1024, 4096]",
        "attn.q_norm [1024]",
        "attn.wq_b [32768, 1024]",
        "attn.wkv [512, 4096]",
        "attn.kv_norm [512]",
        "attn.wo_a [8192, 4096]",
        "attn.wo_b [4096, 8192]",
        "attn.attn_sink [64]",
        "attn.compressor.wkv [1024, 4096]",
        "attn.compressor.wgate [1024, 4096]",
        "attn.compressor.ape [4, 1024]",
        "attn.compressor.norm [512]",
        "attn.indexer.wq_b [8192, 1024]",
        "attn.indexer.weights_proj [64, 4096]",
        "attn.indexer.compressor.wkv [256, 4096]",
        "attn.indexer.compressor.wgate [256, 4096]",
        "attn.indexer.compressor.ape [4, 256]",
        "attn.indexer.compressor.norm [128]",
        "ffn.gate [256, 4096]",
        "ffn.gate.tid2eid [129280, 6]",
        "ffn.experts.w1 [256, 2048, 4096]",
        "ffn.experts.w2 [256, 4096, 2048]",
        "ffn.experts.w3 [256, 2048, 4096]",
        "ffn.shared_experts.w1 [2048, 4096]",
        "ffn.shared_experts.w2 [4096, 2048]",
        "ffn.shared_experts.w3 [2048, 4096]",
      ]
    `);
    expect(names(3).filter((name) => /compressor|indexer|gate/.test(name))).toMatchInlineSnapshot(`
      [
        "attn.compressor.wkv [512, 4096]",
        "attn.compressor.wgate [512, 4096]",
        "attn.compressor.ape [128, 512]",
        "attn.compressor.norm [512]",
        "ffn.gate [256, 4096]",
        "ffn.gate.bias [256]",
      ]
    `);
    expect(names(0).filter((name) => /compressor|indexer/.test(name))).toEqual([]);
  });

  test("keys and values of grouped queries are as many as n_kv_heads says", () => {
    const shapes = (preset: string): unknown[] =>
      describeModel(preset)
        .parameters.filter(({ name }) => name.startsWith("layers.0.attn."))
        .map(({ shape }) => shape);
    expect(shapes("deepseek-llm-67b")).toEqual([
      [8192, 8192],
      [1024, 8192],
      [1024, 8192],
      [8192, 8192],
    ]);
    expect(shapes("deepseek-moe-16b")).toEqual(Array.from({ length: 4 }, () => [2048, 2048]));
  });

  test("matrices decay, norms and the router's bias do not", () => {
    for (const { name, shape, decay } of describeModel("tiny").parameters) {
      expect([name, decay]).toEqual([name, shape.length > 1]);
    }
  });

  test("a tied model has no head of its own and accepts a copy on reading", () => {
    const bp = describeModel("tiny", { tie_word_embeddings: true });
    expect(bp.parameters.map((parameter) => parameter.name)).not.toContain("head");
    expect(checkpointCopies(bp).map(({ name, parameter }) => [name, parameter])).toEqual([
      ["lm_head.weight", "embed"],
      ["model.layers.2.embed_tokens.weight", "embed"],
      ["model.layers.2.shared_head.head.weight", "embed"],
    ]);
  });

  test("only noaux_tc has a router bias", () => {
    const names = (bp: Blueprint) => bp.parameters.map((parameter) => parameter.name);
    expect(names(describeModel("tiny"))).toContain("layers.1.ffn.gate.bias");
    expect(names(describeModel("lite-slice")).filter((name) => name.endsWith("bias"))).toEqual([]);
  });

  test("shard axes point at an axis of the shape", () => {
    for (const { shape, shardAxes } of describeModel("deepseek-v3").parameters) {
      for (const axis of Object.values(shardAxes)) expect(axis).toBeLessThan(shape.length);
    }
  });
});

describe("checkpoint names", () => {
  test("a stacked expert parameter expands into one tensor per expert", () => {
    const tensors = checkpointNames(describeModel("tiny")).filter(
      ({ parameter }) => parameter === "layers.1.ffn.experts.w2",
    );
    expect(tensors).toHaveLength(8);
    expect(tensors[7]).toEqual({
      name: "model.layers.1.mlp.experts.7.down_proj.weight",
      shape: [32, 16],
      parameter: "layers.1.ffn.experts.w2",
      expert: 7,
    });
  });

  test("the tensors of a tiny V3 have the names of Hugging Face", () => {
    const names = checkpointNames(describeModel("tiny"))
      .filter(({ expert = 0 }) => expert === 0)
      .map(({ name, shape }) => `${name} [${shape.join(", ")}]`)
      .filter((name) => !name.includes("layers.1."));
    expect(names).toMatchInlineSnapshot(`
      [
        "model.embed_tokens.weight [512, 32]",
        "model.norm.weight [32]",
        "lm_head.weight [512, 32]",
        "model.layers.0.input_layernorm.weight [32]",
        "model.layers.0.post_attention_layernorm.weight [32]",
        "model.layers.0.self_attn.q_a_proj.weight [16, 32]",
        "model.layers.0.self_attn.q_a_layernorm.weight [16]",
        "model.layers.0.self_attn.q_b_proj.weight [32, 16]",
        "model.layers.0.self_attn.kv_a_proj_with_mqa.weight [24, 32]",
        "model.layers.0.self_attn.kv_a_layernorm.weight [16]",
        "model.layers.0.self_attn.kv_b_proj.weight [32, 16]",
        "model.layers.0.self_attn.o_proj.weight [32, 16]",
        "model.layers.0.mlp.gate_proj.weight [64, 32]",
        "model.layers.0.mlp.down_proj.weight [32, 64]",
        "model.layers.0.mlp.up_proj.weight [64, 32]",
        "model.layers.2.enorm.weight [32]",
        "model.layers.2.hnorm.weight [32]",
        "model.layers.2.eh_proj.weight [32, 64]",
        "model.layers.2.input_layernorm.weight [32]",
        "model.layers.2.post_attention_layernorm.weight [32]",
        "model.layers.2.shared_head.norm.weight [32]",
        "model.layers.2.self_attn.q_a_proj.weight [16, 32]",
        "model.layers.2.self_attn.q_a_layernorm.weight [16]",
        "model.layers.2.self_attn.q_b_proj.weight [32, 16]",
        "model.layers.2.self_attn.kv_a_proj_with_mqa.weight [24, 32]",
        "model.layers.2.self_attn.kv_a_layernorm.weight [16]",
        "model.layers.2.self_attn.kv_b_proj.weight [32, 16]",
        "model.layers.2.self_attn.o_proj.weight [32, 16]",
        "model.layers.2.mlp.gate.weight [8, 32]",
        "model.layers.2.mlp.gate.e_score_correction_bias [8]",
        "model.layers.2.mlp.experts.0.gate_proj.weight [16, 32]",
        "model.layers.2.mlp.experts.0.down_proj.weight [32, 16]",
        "model.layers.2.mlp.experts.0.up_proj.weight [16, 32]",
        "model.layers.2.mlp.shared_experts.gate_proj.weight [16, 32]",
        "model.layers.2.mlp.shared_experts.down_proj.weight [32, 16]",
        "model.layers.2.mlp.shared_experts.up_proj.weight [16, 32]",
      ]
    `);
  });

  test("tensors hold exactly the elements of the parameters", () => {
    for (const preset of presetNames()) {
      const bp = describeModel(preset);
      const inTensors = checkpointNames(bp).reduce((sum, { shape }) => sum + countElements(shape), 0);
      const inParameters = bp.parameters.reduce((sum, { shape }) => sum + countElements(shape), 0);
      expect(inTensors).toBe(inParameters);
    }
  });

  test("no two tensors of a released checkpoint share a name", () => {
    for (const preset of ["tiny", "deepseek-llm-7b", "deepseek-v4-flash", "deepseek-vl2-tiny", "bert-base"]) {
      const names = [...releasedTensors(describeModel(preset))].map(({ name }) => name);
      expect(new Set(names).size).toBe(names.length);
    }
  });

  test("released names, types and shapes of a layer of V3, V4 and of the eyes of VL2", () => {
    const lines = (preset: string, pattern: RegExp): string[] =>
      [...releasedTensors(describeModel(preset))]
        .filter(({ name }) => pattern.test(name))
        .map(({ name, dtype, shape, role }) => `${name} ${dtype} [${shape.join(", ")}] ${role}`);
    expect(lines("deepseek-v3", /^model\.layers\.61\.(?!mlp\.experts)/)).toMatchInlineSnapshot(`
      [
        "model.layers.61.enorm.weight BF16 [7168] parameter",
        "model.layers.61.hnorm.weight BF16 [7168] parameter",
        "model.layers.61.eh_proj.weight BF16 [7168, 14336] parameter",
        "model.layers.61.input_layernorm.weight BF16 [7168] parameter",
        "model.layers.61.post_attention_layernorm.weight BF16 [7168] parameter",
        "model.layers.61.shared_head.norm.weight BF16 [7168] parameter",
        "model.layers.61.self_attn.q_a_proj.weight F8_E4M3 [1536, 7168] parameter",
        "model.layers.61.self_attn.q_a_proj.weight_scale_inv F32 [12, 56] scale",
        "model.layers.61.self_attn.q_a_layernorm.weight BF16 [1536] parameter",
        "model.layers.61.self_attn.q_b_proj.weight F8_E4M3 [24576, 1536] parameter",
        "model.layers.61.self_attn.q_b_proj.weight_scale_inv F32 [192, 12] scale",
        "model.layers.61.self_attn.kv_a_proj_with_mqa.weight F8_E4M3 [576, 7168] parameter",
        "model.layers.61.self_attn.kv_a_proj_with_mqa.weight_scale_inv F32 [5, 56] scale",
        "model.layers.61.self_attn.kv_a_layernorm.weight BF16 [512] parameter",
        "model.layers.61.self_attn.kv_b_proj.weight F8_E4M3 [32768, 512] parameter",
        "model.layers.61.self_attn.kv_b_proj.weight_scale_inv F32 [256, 4] scale",
        "model.layers.61.self_attn.o_proj.weight F8_E4M3 [7168, 16384] parameter",
        "model.layers.61.self_attn.o_proj.weight_scale_inv F32 [56, 128] scale",
        "model.layers.61.mlp.gate.weight BF16 [256, 7168] parameter",
        "model.layers.61.mlp.gate.e_score_correction_bias F32 [256] parameter",
        "model.layers.61.mlp.shared_experts.gate_proj.weight F8_E4M3 [2048, 7168] parameter",
        "model.layers.61.mlp.shared_experts.gate_proj.weight_scale_inv F32 [16, 56] scale",
        "model.layers.61.mlp.shared_experts.down_proj.weight F8_E4M3 [7168, 2048] parameter",
        "model.layers.61.mlp.shared_experts.down_proj.weight_scale_inv F32 [56, 16] scale",
        "model.layers.61.mlp.shared_experts.up_proj.weight F8_E4M3 [2048, 7168] parameter",
        "model.layers.61.mlp.shared_experts.up_proj.weight_scale_inv F32 [16, 56] scale",
        "model.layers.61.embed_tokens.weight BF16 [129280, 7168] duplicate",
        "model.layers.61.shared_head.head.weight BF16 [129280, 7168] duplicate",
      ]
    `);
    expect(lines("deepseek-v4-flash", /^mtp\.0\.(?!ffn\.experts\.([1-9]|0.*w[23]))/)).toMatchInlineSnapshot(`
      [
        "mtp.0.enorm.weight BF16 [4096] parameter",
        "mtp.0.hnorm.weight BF16 [4096] parameter",
        "mtp.0.e_proj.weight F8_E4M3 [4096, 4096] parameter",
        "mtp.0.e_proj.scale F8_E8M0 [32, 32] scale",
        "mtp.0.h_proj.weight F8_E4M3 [4096, 4096] parameter",
        "mtp.0.h_proj.scale F8_E8M0 [32, 32] scale",
        "mtp.0.attn_norm.weight BF16 [4096] parameter",
        "mtp.0.ffn_norm.weight BF16 [4096] parameter",
        "mtp.0.hc_attn_fn F32 [24, 16384] parameter",
        "mtp.0.hc_attn_base F32 [24] parameter",
        "mtp.0.hc_attn_scale F32 [3] parameter",
        "mtp.0.hc_ffn_fn F32 [24, 16384] parameter",
        "mtp.0.hc_ffn_base F32 [24] parameter",
        "mtp.0.hc_ffn_scale F32 [3] parameter",
        "mtp.0.norm.weight BF16 [4096] parameter",
        "mtp.0.hc_head_fn F32 [4, 16384] parameter",
        "mtp.0.hc_head_base F32 [4] parameter",
        "mtp.0.hc_head_scale F32 [1] parameter",
        "mtp.0.attn.wq_a.weight F8_E4M3 [1024, 4096] parameter",
        "mtp.0.attn.wq_a.scale F8_E8M0 [8, 32] scale",
        "mtp.0.attn.q_norm.weight BF16 [1024] parameter",
        "mtp.0.attn.wq_b.weight F8_E4M3 [32768, 1024] parameter",
        "mtp.0.attn.wq_b.scale F8_E8M0 [256, 8] scale",
        "mtp.0.attn.wkv.weight F8_E4M3 [512, 4096] parameter",
        "mtp.0.attn.wkv.scale F8_E8M0 [4, 32] scale",
        "mtp.0.attn.kv_norm.weight BF16 [512] parameter",
        "mtp.0.attn.wo_a.weight F8_E4M3 [8192, 4096] parameter",
        "mtp.0.attn.wo_a.scale F8_E8M0 [64, 32] scale",
        "mtp.0.attn.wo_b.weight F8_E4M3 [4096, 8192] parameter",
        "mtp.0.attn.wo_b.scale F8_E8M0 [32, 64] scale",
        "mtp.0.attn.attn_sink F32 [64] parameter",
        "mtp.0.ffn.gate.weight BF16 [256, 4096] parameter",
        "mtp.0.ffn.gate.bias F32 [256] parameter",
        "mtp.0.ffn.experts.0.w1.weight I8 [2048, 2048] parameter",
        "mtp.0.ffn.experts.0.w1.scale F8_E8M0 [2048, 128] scale",
        "mtp.0.ffn.shared_experts.w1.weight F8_E4M3 [2048, 4096] parameter",
        "mtp.0.ffn.shared_experts.w1.scale F8_E8M0 [16, 32] scale",
        "mtp.0.ffn.shared_experts.w2.weight F8_E4M3 [4096, 2048] parameter",
        "mtp.0.ffn.shared_experts.w2.scale F8_E8M0 [32, 16] scale",
        "mtp.0.ffn.shared_experts.w3.weight F8_E4M3 [2048, 4096] parameter",
        "mtp.0.ffn.shared_experts.w3.scale F8_E8M0 [16, 32] scale",
      ]
    `);
    expect(lines("deepseek-vl2-tiny", /^(projector|image|view|vision\.(patch|pos|blocks\.0\.|attn_pool\.l))/))
      .toMatchInlineSnapshot(`
      [
        "vision.patch_embed.proj.weight BF16 [1152, 3, 14, 14] parameter",
        "vision.patch_embed.proj.bias BF16 [1152] parameter",
        "vision.pos_embed BF16 [1, 729, 1152] parameter",
        "vision.blocks.0.norm1.weight BF16 [1152] parameter",
        "vision.blocks.0.norm1.bias BF16 [1152] parameter",
        "vision.blocks.0.attn.qkv.weight BF16 [3456, 1152] parameter",
        "vision.blocks.0.attn.qkv.bias BF16 [3456] parameter",
        "vision.blocks.0.attn.proj.weight BF16 [1152, 1152] parameter",
        "vision.blocks.0.attn.proj.bias BF16 [1152] parameter",
        "vision.blocks.0.norm2.weight BF16 [1152] parameter",
        "vision.blocks.0.norm2.bias BF16 [1152] parameter",
        "vision.blocks.0.mlp.fc1.weight BF16 [4304, 1152] parameter",
        "vision.blocks.0.mlp.fc1.bias BF16 [4304] parameter",
        "vision.blocks.0.mlp.fc2.weight BF16 [1152, 4304] parameter",
        "vision.blocks.0.mlp.fc2.bias BF16 [1152] parameter",
        "vision.attn_pool.latent BF16 [1, 1, 1152] parameter",
        "projector.layers.0.weight BF16 [1280, 4608] parameter",
        "projector.layers.0.bias BF16 [1280] parameter",
        "projector.layers.2.weight BF16 [1280, 1280] parameter",
        "projector.layers.2.bias BF16 [1280] parameter",
        "image_newline BF16 [1280] parameter",
        "view_seperator BF16 [1280] parameter",
      ]
    `);
    expect(lines("bert-base", /^(embeddings|pooler|encoder\.layer\.0\.)/)).toMatchInlineSnapshot(`
      [
        "embeddings.word_embeddings.weight F32 [30522, 768] parameter",
        "embeddings.position_embeddings.weight F32 [512, 768] parameter",
        "embeddings.token_type_embeddings.weight F32 [2, 768] parameter",
        "embeddings.LayerNorm.weight F32 [768] parameter",
        "embeddings.LayerNorm.bias F32 [768] parameter",
        "pooler.dense.weight F32 [768, 768] parameter",
        "pooler.dense.bias F32 [768] parameter",
        "encoder.layer.0.attention.self.query.weight F32 [768, 768] parameter",
        "encoder.layer.0.attention.self.query.bias F32 [768] parameter",
        "encoder.layer.0.attention.self.key.weight F32 [768, 768] parameter",
        "encoder.layer.0.attention.self.key.bias F32 [768] parameter",
        "encoder.layer.0.attention.self.value.weight F32 [768, 768] parameter",
        "encoder.layer.0.attention.self.value.bias F32 [768] parameter",
        "encoder.layer.0.attention.output.dense.weight F32 [768, 768] parameter",
        "encoder.layer.0.attention.output.dense.bias F32 [768] parameter",
        "encoder.layer.0.attention.output.LayerNorm.weight F32 [768] parameter",
        "encoder.layer.0.attention.output.LayerNorm.bias F32 [768] parameter",
        "encoder.layer.0.intermediate.dense.weight F32 [3072, 768] parameter",
        "encoder.layer.0.intermediate.dense.bias F32 [3072] parameter",
        "encoder.layer.0.output.dense.weight F32 [768, 3072] parameter",
        "encoder.layer.0.output.dense.bias F32 [768] parameter",
        "encoder.layer.0.output.LayerNorm.weight F32 [768] parameter",
        "encoder.layer.0.output.LayerNorm.bias F32 [768] parameter",
      ]
    `);
  });
});
