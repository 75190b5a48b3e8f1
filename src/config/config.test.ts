import { describe, expect, test } from "vitest";
import {
  configHash,
  diffConfigs,
  findParameter,
  fromJson,
  listParameters,
  preset,
  presetNames,
  printConfig,
  resolveConfig,
  rowOf,
  spellingsOf,
  toJson,
  toSnakeCase,
  type ConfigInput,
} from "./index.ts";
import { toHfConfig } from "./hf-config.ts";
import { defaultRules } from "./defaults.ts";
import { isRule, SECTIONS } from "./row.ts";

// oxlint-disable-next-line oxc/approx-constant -- the number of config.json, not √½
const V2_MSCALE = 0.707;

/** A fixed configuration, so that tuning a preset moves no expectation. */
const BASE: ConfigInput = {
  preset: "nano",
  vocab_size: 4096,
  dim: 256,
  n_layers: 5,
  batch_size: 8,
  steps: 600,
  lr: 3e-3,
};

/** The message with which resolving fails. */
function failure(overrides: ConfigInput, base: string | ConfigInput = BASE): string {
  try {
    resolveConfig(base, overrides);
  } catch (error) {
    expect((error as Error).name).toBe("ConfigError");
    return (error as Error).message;
  }
  return "no error";
}

describe("rows", () => {
  const MODEL_ARGS =
    "max_batch_size max_seq_len dtype scale_fmt vocab_size dim inter_dim moe_inter_dim n_layers n_dense_layers n_heads " +
    "n_routed_experts n_shared_experts n_activated_experts n_expert_groups n_limited_groups score_func route_scale " +
    "q_lora_rank kv_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim original_seq_len rope_theta rope_factor " +
    "beta_fast beta_slow mscale";
  const withHome = (home: string): string[] =>
    listParameters()
      .filter((parameter) => rowOf(parameter).realIn === home)
      .map((parameter) => toSnakeCase(parameter.name));

  test("all 29 fields of ModelArgs and its five globals are there", () => {
    expect(withHome("ModelArgs")).toEqual(MODEL_ARGS.split(" "));
    expect(withHome("global")).toEqual(["world_size", "rank", "block_size", "gemm_impl", "attn_impl"]);
  });

  test("without a preset the model is ModelArgs' own, the 16B one", () => {
    const { model } = resolveConfig({});
    const defaults = Object.fromEntries(
      withHome("ModelArgs").map((name) => [name, Object.entries(model).find(([key]) => toSnakeCase(key) === name)![1]]),
    );
    expect(defaults).toEqual({
      max_batch_size: 8,
      max_seq_len: 16384,
      dtype: "bf16",
      scale_fmt: null,
      vocab_size: 102400,
      dim: 2048,
      inter_dim: 10944,
      moe_inter_dim: 1408,
      n_layers: 27,
      n_dense_layers: 1,
      n_heads: 16,
      n_routed_experts: 64,
      n_shared_experts: 2,
      n_activated_experts: 6,
      n_expert_groups: 1,
      n_limited_groups: 1,
      score_func: "softmax",
      route_scale: 1,
      q_lora_rank: 0,
      kv_lora_rank: 512,
      qk_nope_head_dim: 128,
      qk_rope_head_dim: 64,
      v_head_dim: 128,
      original_seq_len: 4096,
      rope_theta: 10000,
      rope_factor: 40,
      beta_fast: 32,
      beta_slow: 1,
      mscale: 1,
    });
  });

  test("every row says what it is in a sentence and why its default is so", () => {
    for (const parameter of listParameters()) {
      const row = rowOf(parameter);
      expect(row.meaning, parameter.name).toMatch(/^[A-Z].*\.$/);
      expect(row.why, parameter.name).not.toBe("");
      expect(row.source, parameter.name).not.toBe("");
    }
  });

  test("exactly the rows whose default is a rule have a function for it", () => {
    const byRule = listParameters().filter((parameter) => isRule(rowOf(parameter).default));
    const config = resolveConfig({});
    const functions = SECTIONS.flatMap((section) => Object.keys(defaultRules(section, config)));
    expect(byRule.map((parameter) => parameter.name).toSorted()).toEqual(functions.toSorted());
  });

  test("every spelling with its section leads back to its parameter", () => {
    for (const parameter of listParameters()) {
      for (const spelling of spellingsOf(parameter)) {
        expect(findParameter(`${parameter.section}.${spelling}`)).toEqual(parameter);
      }
    }
  });
});

describe("spellings", () => {
  test("Hugging Face, Megatron, GGUF, camelCase and articles mean the same parameter", () => {
    const spellings = ["dim", "hidden_size", "hiddenSize", "--hidden-size", "deepseek2.embedding_length", "model_dim"];
    for (const spelling of spellings) expect(resolveConfig("nano", { [spelling]: 192 }).model.dim).toBe(192);
  });

  test("sections may be nested, in front with a dot, or left out", () => {
    expect(resolveConfig("nano", { training: { learning_rate: 0.5 } }).training.lr).toBe(0.5);
    expect(resolveConfig("nano", { "training.lr": 0.5 }).training.lr).toBe(0.5);
    expect(resolveConfig("nano", { lr: 0.5 }).training.lr).toBe(0.5);
    expect(resolveConfig("nano", { rope_scaling: { factor: 8 } }).model.ropeFactor).toBe(8);
  });

  test("foreign spellings of values are understood", () => {
    expect(resolveConfig("nano", { precision: "bfloat16", q_lora_rank: null }).training.precision).toBe("bf16");
    expect(resolveConfig("nano", { "deepseek2.expert_gating_func": 2 }).model.scoreFunc).toBe("sigmoid");
  });

  test("an unknown key names the nearest known one", () => {
    expect(failure({ hiden_size: 3 })).toMatchInlineSnapshot(
      `"hiden_size: must be a known parameter; did you mean hidden_size?"`,
    );
    expect(failure({ training: { learning_rat: 3 } })).toMatchInlineSnapshot(
      `"training.learning_rat: must be a known parameter; did you mean learning_rate?"`,
    );
    expect(failure({ model: { lr: 3 } })).toMatchInlineSnapshot(
      `"model.lr: must be a parameter of model; write training.lr"`,
    );
    expect(failure({ flux_capacitor: 3 })).toMatchInlineSnapshot(
      `"flux_capacitor: must be a known parameter; fathom explain lists them all"`,
    );
    expect(failure({}, "nanno")).toMatchInlineSnapshot(
      `"preset: must be a known preset, got "nanno"; did you mean nano?"`,
    );
    expect(failure({}, "toString")).toMatch(
      /^preset: must be a known preset, got "toString"; choose one of nano, tiny, lite-slice, .*deepseek-v3/,
    );
  });

  test("a name that two sections share needs its section", () => {
    expect(failure({ seed: 1 })).toMatchInlineSnapshot(
      `"seed: must name one parameter; write training.seed or generation.seed"`,
    );
  });

  test("two spellings of one parameter must agree", () => {
    expect(failure({ hidden_size: 256, dim: 128 })).toMatchInlineSnapshot(
      `"dim: must agree with hidden_size (256), got 128; give one of them"`,
    );
    expect(resolveConfig("nano", { hidden_size: 128, dim: 128 }).model.dim).toBe(128);
  });
});

describe("a value out of range is refused in the user's spelling", () => {
  test.each([
    [{ num_attention_heads: 0 }, "num_attention_heads: must be a whole number of at least 1, got 0; the default is 16"],
    [{ dim: 25.5 }, "dim: must be a whole number of at least 1, got 25.5; the default is 2048"],
    [{ lr: Number.NaN }, "lr: must be a number above 0 and of at most 1, got NaN; the default is 0.001"],
    [{ lr: "fast" }, 'lr: must be a number above 0 and of at most 1, got "fast"; the default is 0.001'],
    [{ steps: 0 }, "steps: must be a whole number of at least 1, got 0; the default is 600"],
    [{ vocab_size: -1 }, "vocab_size: must be a whole number of at least 1, got -1; the default is 102400"],
    [{ scale_fmt: "e4m3" }, 'scale_fmt: must be null or one of ue8m0, got "e4m3"; the default is null'],
    [
      { schedule: "linear" },
      'schedule: must be one of cosine, wsd, piecewise, constant, got "linear"; the default is "cosine"',
    ],
    [{ tie_word_embeddings: 1 }, "tie_word_embeddings: must be true or false, got 1; the default is false"],
    [{ milestones: 0.8 }, "milestones: must be a list of numbers, got 0.8; the default is [0.8,0.9]"],
    [
      { milestones: [0.8, 2] },
      "milestones: must be a number above 0 and of at most 1, got 2; the default is [0.8,0.9]",
    ],
    [{ stop: [""] }, 'stop: must be a list of texts, none empty, got [""]; the default is []'],
    [
      { world_size: 2 },
      "world_size: must be tp × pp × cp × dp (1 × 1 × 1 × 1), got 2; leave it out: it follows from the layout",
    ],
  ])("%j", (overrides, message) => {
    expect(failure(overrides)).toBe(message);
  });
});

describe("settings that conflict are refused with the cure", () => {
  test.each([
    [
      { n_dense_layers: 6 },
      "n_dense_layers: must be at most n_layers (5), got 6; lower n_dense_layers or raise n_layers",
    ],
    [
      { num_experts_per_tok: 17 },
      "num_experts_per_tok: must be at most n_routed_experts (16), got 17; lower n_activated_experts or raise n_routed_experts",
    ],
    [
      { n_expert_groups: 3 },
      "n_expert_groups: must divide n_routed_experts (16), got 3; choose a number of groups that divides the experts, or 1 for no groups",
    ],
    [
      { n_expert_groups: 4, n_limited_groups: 5 },
      "n_limited_groups: must be at most n_expert_groups (4), got 5; lower n_limited_groups or raise n_expert_groups",
    ],
    [
      { n_expert_groups: 8, n_limited_groups: 1 },
      "n_activated_experts: must be at most the 2 experts of n_limited_groups (1) groups, got 4; lower n_activated_experts or raise n_limited_groups",
    ],
    [
      { n_expert_groups: 16, n_limited_groups: 4 },
      "n_expert_groups: must leave at least 2 of the 16 experts in a group, since noaux_tc scores a group by its two best, got 16; lower n_expert_groups",
    ],
    [
      { topk_method: "greedy" },
      'topk_method: must be noaux_tc with score_func sigmoid, got "greedy"; set both as in V3 (sigmoid, noaux_tc) or as in V2 (softmax, group_limited_greedy)',
    ],
    [
      { score_func: "softmax", topk_method: "greedy", n_expert_groups: 4, n_limited_groups: 2 },
      "n_expert_groups: must be 1 with topk_method greedy, which knows no groups, got 4; set topk_method to group_limited_greedy or n_expert_groups to 1",
    ],
    [
      { score_func: "softmax", router_bias_speed: 0.1 },
      "router_bias_speed: must be 0 with topk_method greedy, which has no bias, got 0.1; set router_bias_speed to 0 or topk_method to noaux_tc",
    ],
    [
      { qk_rope_head_dim: 33 },
      "qk_rope_head_dim: must be even, since channels are rotated in pairs, got 33; add or remove one channel",
    ],
    [
      { mscale: 0.7, mscale_all_dim: 0 },
      "mscale_all_dim: must be above 0 together with mscale (0.7), or 0 with mscale 1, got 0; give both the same value, as every DeepSeek model does",
    ],
    [{ beta_slow: 33 }, "beta_slow: must be at most beta_fast (32), got 33; leave them at 32 and 1"],
    [
      { scale_fmt: "ue8m0" },
      'scale_fmt: must be null with dtype f32, which has no scales, got "ue8m0"; leave scale_fmt out or set dtype to fp8',
    ],
    [
      { sequence_length: 1025 },
      "sequence_length: must be at most max_seq_len (1024), got 1025; lower seq_len or raise max_seq_len",
    ],
    [
      { micro_batch_size: 3 },
      "micro_batch_size: must divide batch_size (8), got 3; batch_size = micro_batch_size × grad_accum_steps × dp",
    ],
    [{ warmup_steps: 601 }, "warmup_steps: must be at most schedule_steps (600), got 601; lower warmup_steps"],
    [
      { schedule: "wsd", warmup_steps: 100, decay_steps: 501 },
      "decay_steps: must be at most schedule_steps − warmup_steps (500), got 501; lower decay_steps or warmup_steps",
    ],
    [{ min_lr: 0.01 }, "min_lr: must be at most lr (0.003), got 0.01; lower min_lr"],
    [{ milestones: [0.9, 0.8] }, "milestones: must rise, got [0.9, 0.8]; sort them"],
    [
      { milestone_factors: [0.1] },
      "milestone_factors: must have one value for each of the 2 milestones, got [0.1]; give as many factors as milestones",
    ],
  ])("%j", (overrides, message) => {
    expect(failure(overrides)).toBe(message);
  });
});

describe("resolving", () => {
  test("derives the softmax scale of V2 and V3 with the square of YaRN's mscale", () => {
    expect(resolveConfig("deepseek-v2").model.softmaxScale).toBeCloseTo(0.1147213868, 10);
    expect(resolveConfig("deepseek-v3").model.softmaxScale).toBeCloseTo(0.1352337789, 10);
    const plain = resolveConfig("deepseek-v3", { rope_factor: 1 }).model;
    expect(plain.softmaxScale).toBeCloseTo(0.0721687836, 10);
    expect(plain.qkHeadDim).toBe(192);
  });

  test("scales cos and sin by the ratio of the two mscales, 1 in every release", () => {
    for (const name of presetNames()) expect(resolveConfig(name).model.ropeScale).toBe(1);
    const absent = resolveConfig("deepseek-v3", { mscale: 1, mscale_all_dim: 0 }).model;
    expect(absent.ropeScale).toBeCloseTo(1.3688879, 7);
    expect(absent.softmaxScale).toBeCloseTo(0.0721687836, 10);
  });

  test("the one mscale of a DeepSeek demo configuration means both", () => {
    expect(resolveConfig({ mscale: V2_MSCALE }).model.mscaleAllDim).toBe(V2_MSCALE);
  });

  test("the router follows score_func and groups as in the released models", () => {
    const router = (overrides: ConfigInput): unknown[] => {
      const { topkMethod, normTopkProb, routerBiasSpeed } = resolveConfig({}, overrides).model;
      return [topkMethod, normTopkProb, routerBiasSpeed];
    };
    expect(router({})).toEqual(["greedy", false, 0]);
    expect(router({ n_group: 8, topk_group: 3 })).toEqual(["group_limited_greedy", false, 0]);
    expect(router({ score_func: "sigmoid" })).toEqual(["noaux_tc", true, 0.001]);
  });

  test("a context shorter than 256 tokens shortens the training sequences", () => {
    expect(resolveConfig("tiny", { training: {} }).training.seqLen).toBe(64);
    expect(resolveConfig({ max_seq_len: 100 }).training.seqLen).toBe(100);
    expect(resolveConfig({}).training.seqLen).toBe(256);
  });

  test("defaults that follow from the length of the run and the batch", () => {
    const { training } = resolveConfig("nano", { steps: 1000, batch_size: 12, micro_batch_size: 4 });
    expect(training).toMatchObject({
      scheduleSteps: 1000,
      warmupSteps: 50,
      decaySteps: 200,
      evalEvery: 250,
      gradAccumSteps: 3,
      tokensPerStep: 12 * 256,
    });
  });

  test("overrides win over the base, and the base over its preset", () => {
    const config = resolveConfig({ ...BASE, dim: 128, n_heads: 2 }, { dim: 64 });
    expect([config.model.dim, config.model.nHeads, config.model.nLayers]).toEqual([64, 2, 5]);
  });

  test("the result is frozen to the leaves", () => {
    const { model, training } = resolveConfig("tiny");
    expect(() => Object.assign(model, { dim: 1 })).toThrow(TypeError);
    expect(() => Object.assign(training.milestones, [1])).toThrow(TypeError);
  });

  test("every value has its reason", () => {
    const config = resolveConfig("nano", { hidden_size: 128 });
    const paths = SECTIONS.flatMap((section) =>
      Object.keys(config[section]).map((name) => `${section}.${toSnakeCase(name)}`),
    );
    expect(Object.keys(config.why).toSorted()).toEqual(paths.toSorted());
    expect(config.why["model.dim"]).toBe("given as hidden_size");
    expect(config.why["model.n_layers"]).toBe("preset nano");
    expect(config.why["training.min_lr"]).toBe("default (lr / 10): V3 ended its cosine at a tenth of the peak");
  });

  test("a line of the printed configuration shows value and reason", () => {
    const lines = printConfig(resolveConfig(BASE)).split("\n");
    expect(lines.find((line) => line.startsWith("model.dim "))).toMatch(/^model\.dim +256 +given as dim$/);
    expect(lines.find((line) => line.startsWith("training.tokens_per_step"))).toMatch(
      /^training\.tokens_per_step +2048 +derived: batch_size · seq_len$/,
    );
  });
});

describe("presets", () => {
  test("only small models and those whose training is not known have the steps of a run of two minutes", () => {
    const steps = presetNames().map((name) => [name, resolveConfig(name).training.steps] as const);
    const short = steps.filter(([, count]) => count < 10_000).map(([name]) => name);
    const counted = presetNames().filter((name) => /vl2|llama2|bert/.test(name));
    expect(short).toEqual(["nano", "tiny", "lite-slice", ...counted]);
  });

  test("the released models have the numbers of their config.json", () => {
    const v3 = toHfConfig(resolveConfig("deepseek-v3").model, { bos: 0, eos: 1 });
    expect(v3).toMatchObject({
      architectures: ["DeepseekV3ForCausalLM"],
      model_type: "deepseek_v3",
      hidden_size: 7168,
      num_hidden_layers: 61,
      num_attention_heads: 128,
      num_key_value_heads: 128,
      q_lora_rank: 1536,
      kv_lora_rank: 512,
      qk_nope_head_dim: 128,
      qk_rope_head_dim: 64,
      v_head_dim: 128,
      intermediate_size: 18432,
      moe_intermediate_size: 2048,
      n_routed_experts: 256,
      n_shared_experts: 1,
      num_experts_per_tok: 8,
      first_k_dense_replace: 3,
      n_group: 8,
      topk_group: 4,
      topk_method: "noaux_tc",
      scoring_func: "sigmoid",
      norm_topk_prob: true,
      routed_scaling_factor: 2.5,
      num_nextn_predict_layers: 1,
      rope_theta: 10000,
      rope_scaling: {
        type: "yarn",
        factor: 40,
        original_max_position_embeddings: 4096,
        beta_fast: 32,
        beta_slow: 1,
        mscale: 1,
        mscale_all_dim: 1,
      },
      max_position_embeddings: 163840,
      vocab_size: 129280,
      rms_norm_eps: 1e-6,
      tie_word_embeddings: false,
      quantization_config: { quant_method: "fp8", fmt: "e4m3", weight_block_size: [128, 128] },
    });
    const lite = toHfConfig(resolveConfig("deepseek-v2-lite").model, { bos: 100000, eos: 100001 });
    expect(lite).toMatchObject({
      model_type: "deepseek_v2",
      q_lora_rank: null,
      topk_method: "greedy",
      aux_loss_alpha: 0.001,
      torch_dtype: "bfloat16",
      rope_scaling: { mscale: V2_MSCALE, mscale_all_dim: V2_MSCALE },
    });
    expect(resolveConfig("deepseek-v2").model).toMatchObject({
      dim: 5120,
      nLayers: 60,
      nHeads: 128,
      qLoraRank: 1536,
      nRoutedExperts: 160,
      nExpertGroups: 8,
      nLimitedGroups: 3,
      routeScale: 16,
      topkMethod: "group_limited_greedy",
    });
  });

  test("a preset is a new plain object each time", () => {
    expect(preset("nano")).toEqual(preset("nano"));
    expect(preset("nano")).not.toBe(preset("nano"));
  });
});

describe("as text", () => {
  test("JSON in snake_case comes back equal, and keeps what it said when defaults change with the steps", () => {
    for (const name of presetNames()) {
      const config = resolveConfig(name);
      expect(diffConfigs(config, fromJson(toJson(config)))).toEqual([]);
    }
    const saved = JSON.parse(toJson(resolveConfig(BASE))) as ConfigInput;
    expect(resolveConfig(saved, { steps: 1200 }).training).toMatchObject({ steps: 1200, scheduleSteps: 600 });
  });

  test("text that is no JSON object is a FormatError", () => {
    expect(() => fromJson("[1]", "run/fathom.json")).toThrow("run/fathom.json: must be a JSON object");
    expect(() => fromJson("{", "run/fathom.json")).toThrow("run/fathom.json: must be JSON (");
  });

  test("the hash follows every setting and nothing else", () => {
    const hash = configHash(resolveConfig(BASE));
    expect(hash).toMatch(/^[0-9a-f]{16}$/);
    expect(configHash(resolveConfig(BASE, { dim: 256 }))).toBe(hash);
    expect(configHash(resolveConfig(BASE, { dim: 128 }))).not.toBe(hash);
    expect(configHash(resolveConfig(BASE, { "generation.seed": 1 }))).not.toBe(hash);
  });

  test("a difference names the setting and both values", () => {
    expect(diffConfigs(resolveConfig(BASE), resolveConfig(BASE, { dim: 128, stop: ["."] }))).toEqual([
      { path: "model.dim", before: 256, after: 128 },
      { path: "generation.stop", before: [], after: ["."] },
    ]);
  });
});

test.each([
  ["deepseek-v3", 235_240],
  ["deepseek-v2", 214_577],
  ["deepseek-v2-lite", 301_997],
  ["deepseek-llm-7b", 211_928],
  ["deepseek-llm-67b", 105_964],
  ["deepseek-moe-16b", 106_449],
])("%s is trained for the steps of its report, after 2000 of warm-up", (name, steps) => {
  const { training } = resolveConfig(name);
  expect(training).toMatchObject({ steps, warmupSteps: 2000 });
});
