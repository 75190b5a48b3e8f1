import { describe, expect, test } from "vitest";
import { presetNames, resolveConfig } from "../config/index.ts";
import {
  blueprint,
  checkpointCopies,
  checkpointNames,
  countElements,
  countParameters,
  type Blueprint,
} from "./index.ts";

const describeModel = (preset: string, overrides = {}): Blueprint => blueprint(resolveConfig(preset, overrides).model);

describe("counts of the released models are exact", () => {
  test("DeepSeek-V2-Lite", () => {
    expect(countParameters(describeModel("deepseek-v2-lite"))).toEqual({
      total: 15_706_484_224,
      activated: 2_661_150_208,
      trainable: 15_706_484_224,
      buffers: 0,
      mtp: 0,
      byModule: {
        embedding: { total: 209_715_200, activated: 209_715_200 },
        head: { total: 209_715_200, activated: 209_715_200 },
        attention: { total: 371_589_120, activated: 371_589_120 },
        dense_ffn: { total: 67_239_936, activated: 67_239_936 },
        routed_experts: { total: 14_394_851_328, activated: 1_349_517_312 },
        shared_experts: { total: 449_839_104, activated: 449_839_104 },
        gates: { total: 3_407_872, activated: 3_407_872 },
        norms: { total: 126_464, activated: 126_464 },
      },
    });
  });

  test("DeepSeek-V2", () => {
    expect(countParameters(describeModel("deepseek-v2"))).toEqual({
      total: 235_741_434_880,
      activated: 21_375_800_320,
      trainable: 235_741_434_880,
      buffers: 0,
      mtp: 0,
      byModule: {
        embedding: { total: 524_288_000, activated: 524_288_000 },
        head: { total: 524_288_000, activated: 524_288_000 },
        attention: { total: 8_953_528_320, activated: 8_953_528_320 },
        dense_ffn: { total: 188_743_680, activated: 188_743_680 },
        routed_experts: { total: 222_717_542_400, activated: 8_351_907_840 },
        shared_experts: { total: 2_783_969_280, activated: 2_783_969_280 },
        gates: { total: 48_332_800, activated: 48_332_800 },
        norms: { total: 742_400, activated: 742_400 },
      },
    });
  });

  test("DeepSeek-V3", () => {
    expect(countParameters(describeModel("deepseek-v3"))).toEqual({
      total: 671_026_419_200,
      activated: 37_552_297_472,
      trainable: 671_026_404_352,
      buffers: 14_848,
      mtp: 11_610_068_224,
      byModule: {
        embedding: { total: 926_679_040, activated: 926_679_040 },
        head: { total: 926_679_040, activated: 926_679_040 },
        attention: { total: 11_413_422_080, activated: 11_413_422_080 },
        dense_ffn: { total: 1_189_085_184, activated: 1_189_085_184 },
        routed_experts: { total: 653_908_770_816, activated: 20_434_649_088 },
        shared_experts: { total: 2_554_331_136, activated: 2_554_331_136 },
        gates: { total: 106_445_312, activated: 106_445_312 },
        norms: { total: 1_006_592, activated: 1_006_592 },
      },
    });
  });

  test("the Hugging Face file of V3 holds the main model, MTP and its two copies", () => {
    const bp = describeModel("deepseek-v3");
    const elements = [...checkpointNames(bp), ...checkpointCopies(bp)]
      .map((tensor) => countElements(tensor.shape))
      .reduce((a, b) => a + b, 0);
    expect(elements).toBe(684_489_845_504);
  });
});

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
});
