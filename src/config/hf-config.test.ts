import { describe, expect, test } from "vitest";
import { hfConfigText, toHfConfig } from "./hf-config.ts";
import { fromHfConfig, int8Format, presetNames, resolveConfig } from "./index.ts";

type Json = Record<string, unknown>;

const hf = (name: string, overrides = {}): Json => toHfConfig(resolveConfig(name, overrides).model, { bos: 0, eos: 1 });
const read = (config: Json) => resolveConfig({ model: fromHfConfig(JSON.stringify(config)) }).model;
const without = (config: Json, ...keys: string[]): Json =>
  Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));
const message = (config: Json): string => {
  try {
    read(config);
  } catch (error) {
    expect((error as Error).name).toBe("ConfigError");
    return (error as Error).message;
  }
  return "no error";
};

/** What Hugging Face has no key for. */
const NOT_THERE = ["scaleFmt", "maxBatchSize", "mtpHidden", "mtpLossWeight", "routerBiasSpeed"];

/** The other spelling of rope: only rope_theta and rope_scaling, or only rope_parameters. */
const spellings = (config: Json): Json[] => {
  const language = config.language_config as Json | undefined;
  if (language !== undefined) return spellings(language).map((part) => ({ ...config, language_config: part }));
  return [without(config, "rope_parameters"), without(config, "rope_theta", "rope_scaling")];
};

describe("what is written is read back", () => {
  test.each(presetNames())("%s, in both spellings of rope", (name) => {
    const { model } = resolveConfig(name);
    for (const config of spellings(hf(name))) expect(read(config)).toMatchObject(without({ ...model }, ...NOT_THERE));
  });

  test("the type of the weights as torch_dtype and as dtype", () => {
    const { torch_dtype: dtype, ...rest } = hf("deepseek-llm-7b");
    expect(dtype).toBe("bfloat16");
    expect(read({ ...rest, dtype }).dtype).toBe("bf16");
    expect(read(hf("llama2-7b")).dtype).toBe("f16");
    expect(read(hf("deepseek-v3.1"))).toMatchObject({ dtype: "fp8", scaleFmt: "ue8m0" });
  });

  test("numbers that transformers reads as floats have a decimal point", () => {
    const { model } = resolveConfig("deepseek-v3");
    const text = hfConfigText(model, { bos: 0, eos: 1 });
    expect(text).toContain('"rope_theta": 10000.0,');
    expect(text).toContain('"mscale_all_dim": 1.0\n');
    expect(text).toContain('"hidden_size": 7168,');
    expect(JSON.parse(text)).toEqual(toHfConfig(model, { bos: 0, eos: 1 }));
  });
});

describe("each architecture has the type, class and keys of its release", () => {
  test.each([
    ["deepseek-llm-67b", "llama", "LlamaForCausalLM"],
    ["deepseek-moe-16b", "deepseek", "DeepseekForCausalLM"],
    ["deepseek-v2", "deepseek_v2", "DeepseekV2ForCausalLM"],
    ["deepseek-r1", "deepseek_v3", "DeepseekV3ForCausalLM"],
    ["deepseek-v3.2", "deepseek_v32", "DeepseekV32ForCausalLM"],
    ["deepseek-v4-pro", "deepseek_v4", "DeepseekV4ForCausalLM"],
    ["deepseek-vl2-base", "deepseek_vl_v2", "DeepseekVLV2ForCausalLM"],
    ["llama2-7b", "llama", "LlamaForCausalLM"],
    ["bert-base", "bert", "BertModel"],
  ])("%s", (name, model_type, modelClass) => {
    expect(hf(name)).toMatchObject({ model_type, architectures: [modelClass] });
  });

  test("V4-Flash", () => {
    expect(hf("deepseek-v4-flash")).toMatchObject({
      hidden_size: 4096,
      num_hidden_layers: 43,
      num_attention_heads: 64,
      num_key_value_heads: 1,
      head_dim: 512,
      qk_rope_head_dim: 64,
      q_lora_rank: 1024,
      o_lora_rank: 1024,
      o_groups: 8,
      moe_intermediate_size: 2048,
      n_routed_experts: 256,
      num_experts_per_tok: 6,
      scoring_func: "sqrtsoftplus",
      routed_scaling_factor: 1.5,
      swiglu_limit: 10,
      num_hash_layers: 3,
      hc_mult: 4,
      hc_sinkhorn_iters: 20,
      sliding_window: 128,
      index_n_heads: 64,
      index_topk: 512,
      compress_rope_theta: 160000,
      rope_scaling: { type: "yarn", factor: 16, original_max_position_embeddings: 65536 },
      num_nextn_predict_layers: 1,
      expert_dtype: "fp4",
      quantization_config: { scale_fmt: "ue8m0" },
    });
    const { compress_ratios: ratios, rope_scaling: rope } = hf("deepseek-v4-flash");
    expect((ratios as number[]).join()).toBe(`0,0,${"4,128,".repeat(20)}4,0`);
    expect(Object.keys(rope as Json)).not.toContain("mscale");
    expect((hf("deepseek-v4-pro").compress_ratios as number[]).join()).toBe(`128,128,${"4,128,".repeat(29)}4,0`);
  });

  test("no key of another architecture is written", () => {
    for (const key of ["head_dim", "hc_mult", "sliding_window", "index_n_heads", "expert_dtype"]) {
      expect(hf("deepseek-v3")).not.toHaveProperty(key);
    }
    for (const key of ["kv_lora_rank", "n_routed_experts", "q_lora_rank"]) {
      expect(hf("llama2-7b")).not.toHaveProperty(key);
    }
  });
});

describe("an absent key means what it means to the class", () => {
  test("a file of transformers' own V3 class, without topk_method and scoring_func, is sigmoid with bias", () => {
    const model = read(without(hf("tiny"), "topk_method", "scoring_func", "norm_topk_prob"));
    expect([model.topkMethod, model.scoreFunc, model.normTopkProb]).toEqual(["noaux_tc", "sigmoid", true]);
  });

  test("V3 has a query latent of 1536, 8 groups and a scale of 2.5; null has no latent", () => {
    const bare = without(hf("deepseek-v3"), "q_lora_rank", "n_group", "topk_group", "routed_scaling_factor");
    expect(read(bare)).toMatchObject({ qLoraRank: 1536, nExpertGroups: 8, nLimitedGroups: 4, routeScale: 2.5 });
    expect(read({ ...bare, q_lora_rank: null }).qLoraRank).toBe(0);
  });

  test("llama has as many key heads as heads and an even share of the width for each", () => {
    const bare = without(hf("deepseek-llm-7b"), "num_key_value_heads", "head_dim");
    expect(read(bare)).toMatchObject({ nKvHeads: 32, headDim: 128, nDenseLayers: 30, qkHeadDim: 128 });
    expect(read(without(hf("deepseek-llm-67b"), "head_dim"))).toMatchObject({ nKvHeads: 8, headDim: 128 });
  });

  test("the indexer of V3.2", () => {
    const bare = without(hf("deepseek-v3.2"), "index_n_heads", "index_head_dim", "index_topk");
    expect(read(bare)).toMatchObject({ indexNHeads: 64, indexHeadDim: 128, indexTopk: 2048 });
  });

  test("no shared experts, and no experts at all", () => {
    expect(read({ ...hf("tiny"), n_shared_experts: null }).nSharedExperts).toBe(0);
    expect(read({ ...hf("deepseek-moe-16b"), n_shared_experts: null }).nSharedExperts).toBe(0);
    const dense = { n_routed_experts: null, n_shared_experts: null, num_experts_per_tok: null };
    expect(read({ ...hf("deepseek-moe-16b"), ...dense }).nDenseLayers).toBe(28);
  });

  test("a language model of VL2 without use_mla is latent, with false it is not", () => {
    const { language_config: language, ...rest } = hf("deepseek-vl2-small");
    expect(read({ ...rest, language_config: without(language as Json, "use_mla") }).attention).toBe("mla");
    expect(read(hf("deepseek-vl2-tiny"))).toMatchObject({ attention: "gqa", vision: "siglip_so400m", nKvHeads: 10 });
  });

  test("rope without scaling is plain rope", () => {
    const model = read({ ...without(hf("tiny"), "rope_parameters"), rope_scaling: null });
    expect([model.ropeFactor, model.ropeTheta, model.ropeScale]).toEqual([1, 10000, 1]);
  });

  test("absent mscale keys mean what they mean to transformers", () => {
    const rope_scaling = { type: "yarn", factor: 4, original_max_position_embeddings: 64 };
    const model = read({ ...without(hf("tiny"), "rope_parameters"), rope_scaling });
    expect(model.ropeScale).toBeCloseTo(0.1 * Math.log(4) + 1, 12);
    expect(model.softmaxScale).toBeCloseTo(0.25, 12);
  });

  test("V4 scales neither scores nor rotated vectors", () => {
    expect(read(hf("deepseek-v4-flash"))).toMatchObject({ ropeScale: 1, softmaxScale: 512 ** -0.5 });
  });
});

describe("what cannot be read is refused", () => {
  const v3 = without(hf("tiny"), "rope_parameters");

  test("another architecture, with the list of those that are known", () => {
    expect(message({ ...v3, model_type: "mamba" })).toMatchInlineSnapshot(
      `"config.json model_type: must be one of llama, deepseek, deepseek_v2, deepseek_v3, deepseek_v32, deepseek_v4, bert, deepseek_vl_v2, got "mamba""`,
    );
    expect(message(without(v3, "model_type"))).toMatchInlineSnapshot(
      `"config.json model_type: must be one of llama, deepseek, deepseek_v2, deepseek_v3, deepseek_v32, deepseek_v4, bert, deepseek_vl_v2, got "none""`,
    );
    expect(message({ ...v3, model_type: "toString" })).toContain("must be one of llama");
    expect(message({ ...v3, hidden_act: "gelu" })).toMatchInlineSnapshot(
      `"config.json hidden_act: must be "silu" in a model of this type, got "gelu""`,
    );
    expect(message({ ...hf("llama2-7b"), attention_bias: true })).toMatchInlineSnapshot(
      `"config.json attention_bias: must be false in a model of this type, got true"`,
    );
    expect(message({ ...hf("deepseek-vl2-tiny"), vision_config: { model_name: "clip" } })).toMatchInlineSnapshot(
      `"config.json vision_config.model_name: must be siglip_so400m_patch14_384, got "clip""`,
    );
    expect(message(without(hf("deepseek-vl2-tiny"), "language_config"))).toMatchInlineSnapshot(
      `"config.json language_config: must be an object, got "none""`,
    );
  });

  test("another quantisation", () => {
    expect(message({ ...v3, quantization_config: { quant_method: "awq", bits: 4 } })).toMatchInlineSnapshot(
      `"config.json quantization_config.quant_method: must be fp8, or compressed-tensors with int8 weights, got "awq"; take the checkpoint that it was made from"`,
    );
    const int8 = int8Format();
    expect(read({ ...v3, dtype: "bfloat16", quantization_config: int8 }).dtype).toBe("bf16");
    const groups = (change: object) => ({
      ...v3,
      quantization_config: {
        ...int8,
        config_groups: { group_0: { ...Object(int8.config_groups).group_0, ...change } },
      },
    });
    expect([
      message({ ...v3, quantization_config: { ...int8, format: "pack-quantized" } }),
      message(groups({ weights: { num_bits: 4, type: "int", symmetric: true, strategy: "group" } })),
      message(groups({ input_activations: { num_bits: 8 } })),
      message(groups({ weights: null })),
    ]).toMatchInlineSnapshot(`
      [
        "config.json quantization_config.format: must be int-quantized, got "pack-quantized"; take the checkpoint that it was made from",
        "config.json quantization_config.config_groups.group_0.weights.num_bits: must be 8, got 4; take the checkpoint that it was made from",
        "config.json quantization_config.config_groups.group_0.input_activations: must be null: only weights are int8 here, got {"num_bits":8}; take the checkpoint that it was made from",
        "config.json quantization_config.config_groups.group_0.weights: must say how weights are quantised, got "none"; take the checkpoint that it was made from",
      ]
    `);
  });

  test("int8 whose scales are of rows or of groups of columns is read, and no other", () => {
    const weights = (change: object) => ({
      ...v3,
      dtype: "bfloat16",
      quantization_config: {
        ...int8Format(),
        config_groups: { group_0: { targets: ["Linear"], weights: { num_bits: 8, ...change } } },
      },
    });
    for (const change of [
      { strategy: "channel" },
      { strategy: "CHANNEL", symmetric: true, dynamic: false },
      { strategy: "group", group_size: 128 },
      { strategy: "group", group_size: 32, actorder: "weight" },
      { strategy: "group", group_size: 32, actorder: "static" },
      { group_size: 128 },
      { group_size: -1 },
    ]) {
      expect(read(weights(change)).dtype).toBe("bf16");
    }
    const others = [
      { strategy: "tensor" },
      { strategy: "block", block_structure: [128, 128] },
      { strategy: "token" },
      { strategy: "tensor_group", group_size: 16 },
      {},
      { strategy: "group", group_size: 128, actorder: "group" },
      { strategy: "channel", symmetric: false },
    ];
    expect(others.map((change) => message(weights(change)))).toMatchInlineSnapshot(`
      [
        "config.json quantization_config.config_groups.group_0.weights.strategy: must be channel or group: a scale for each row, or for each group of columns of a row, got "tensor"; take the checkpoint that it was made from",
        "config.json quantization_config.config_groups.group_0.weights.strategy: must be channel or group: a scale for each row, or for each group of columns of a row, got "block"; take the checkpoint that it was made from",
        "config.json quantization_config.config_groups.group_0.weights.strategy: must be channel or group: a scale for each row, or for each group of columns of a row, got "token"; take the checkpoint that it was made from",
        "config.json quantization_config.config_groups.group_0.weights.strategy: must be channel or group: a scale for each row, or for each group of columns of a row, got "tensor_group"; take the checkpoint that it was made from",
        "config.json quantization_config.config_groups.group_0.weights.strategy: must be channel or group: a scale for each row, or for each group of columns of a row, got "none"; take the checkpoint that it was made from",
        "config.json quantization_config.config_groups.group_0.weights.actorder: must be null, weight or static: groups are of columns side by side, got "group"; take the checkpoint that it was made from",
        "config.json quantization_config.config_groups.group_0.weights.symmetric: must be true, got false; take the checkpoint that it was made from",
      ]
    `);
  });

  test("fp8 in other blocks", () => {
    const quantization_config = { quant_method: "fp8", weight_block_size: [64, 64] };
    expect(message({ ...v3, quantization_config })).toMatchInlineSnapshot(
      `"config.json quantization_config.weight_block_size: must be [128, 128], got [64, 64]; take the checkpoint that it was made from"`,
    );
  });

  test("an absent size and sizes that are none", () => {
    expect(message(without(v3, "hidden_size"))).toMatchInlineSnapshot(
      `"config.json hidden_size: must be given; take the config.json of the checkpoint itself"`,
    );
    expect(message(without(hf("deepseek-v4-flash"), "compress_ratios"))).toMatchInlineSnapshot(
      `"config.json compress_ratios: must be given; take the config.json of the checkpoint itself"`,
    );
    expect(message({})).toContain("config.json model_type: must be one of");
    expect(message({ ...v3, hidden_size: "2048" })).toMatch(
      /^(ConfigError: )?config\.json hidden_size: must be a whole/,
    );
    expect(message({ ...v3, hidden_size: "wide" })).toMatchInlineSnapshot(
      `"config.json hidden_size: must be a whole number of at least 1, got "wide"; the default is 2048"`,
    );
    expect(message({ ...v3, num_hidden_layers: -1 })).toMatchInlineSnapshot(
      `"config.json num_hidden_layers: must be a whole number of at least 1 and of at most 10000, got -1; the default is 27"`,
    );
    expect(message({ ...hf("llama2-7b"), num_key_value_heads: 5 })).toMatchInlineSnapshot(
      `"config.json num_key_value_heads: must divide n_heads (32) with attention gqa, got 5; choose a divisor: n_heads itself is full multi-head attention"`,
    );
    expect(message({ ...hf("deepseek-v4-flash"), num_hidden_layers: 44 })).toMatchInlineSnapshot(
      `"config.json compress_ratios: must have one value for each of the 45 layers, MTP layers last, got [0, 0, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 128, 4, 0]; give as many ratios as n_layers + n_mtp_layers"`,
    );
  });

  test("another rope", () => {
    expect(message({ ...v3, rope_scaling: { type: "linear", factor: 2 } })).toMatchInlineSnapshot(
      `"config.json rope_scaling.rope_type: must be yarn or default, got "linear""`,
    );
    expect(message({ ...v3, rope_scaling: { type: "yarn", factor: 2, mscale: 0.7 } })).toMatchInlineSnapshot(
      `"config.json rope_scaling.mscale_all_dim: must be given together with mscale, got "none""`,
    );
    expect(message({ ...v3, rope_scaling: { type: "yarn", factor: 2, attention_factor: 1 } })).toMatchInlineSnapshot(
      `"config.json rope_scaling.attention_factor: must be absent, got 1; give mscale and mscale_all_dim"`,
    );
    expect(message({ ...v3, rope_scaling: { type: "yarn" } })).toMatchInlineSnapshot(
      `"config.json rope_scaling.factor: must be given with yarn, got "none""`,
    );
  });
});
