import { expect, test } from "vitest";
import { presetNames, resolveConfig, type ConfigInput } from "./index.ts";

function failure(preset: string, overrides: ConfigInput): string {
  try {
    resolveConfig(preset, overrides);
  } catch (error) {
    expect((error as Error).name).toBe("ConfigError");
    return (error as Error).message;
  }
  return "no error";
}

test("every preset resolves, and its heads are as wide as their parts", () => {
  for (const name of presetNames()) {
    const { attention, headDim, qkHeadDim, vHeadDim, nKvHeads } = resolveConfig(name).model;
    if (attention === "mla") expect([name, headDim, nKvHeads]).toEqual([name, 0, 0]);
    else expect([name, qkHeadDim, vHeadDim]).toEqual([name, headDim, headDim]);
  }
});

test("grouped queries take their width from dim and n_heads, and rotate whole heads", () => {
  const { model } = resolveConfig("bert-base", { dim: 1024, n_heads: 16 });
  expect(model).toMatchObject({ headDim: 64, nKvHeads: 16, qkHeadDim: 64, qkRopeHeadDim: 64, vHeadDim: 64 });
  expect(resolveConfig("deepseek-v4-flash").model).toMatchObject({ qkRopeHeadDim: 64, qkNopeHeadDim: 448 });
});

test.each([
  [
    "bert-base",
    { n_heads: 7 },
    "n_heads: must divide dim (768) with attention gqa, got 7; choose a divisor, or give head_dim; mla has no such rule",
  ],
  ["deepseek-v3", { n_heads: 96 }, "no error"],
  [
    "deepseek-llm-67b",
    { num_key_value_heads: 5 },
    "num_key_value_heads: must divide n_heads (64) with attention gqa, got 5; choose a divisor: n_heads itself is full multi-head attention",
  ],
  ["deepseek-v3", { num_key_value_heads: 128 }, "no error"],
  [
    "deepseek-v3",
    { num_key_value_heads: 8 },
    "num_key_value_heads: must be 0 or n_heads (128) with attention mla, whose heads share one latent, got 8; leave it out or set attention to gqa",
  ],
  [
    "deepseek-v3",
    { head_dim: 128 },
    "head_dim: must be 0 with attention mla, got 128; set qk_nope_head_dim, qk_rope_head_dim and v_head_dim, or attention to gqa",
  ],
  [
    "deepseek-llm-7b",
    { v_head_dim: 64 },
    "head_dim: must be qk_nope_head_dim + qk_rope_head_dim (128) and v_head_dim (64) with attention gqa, got 128; give head_dim alone",
  ],
  [
    "deepseek-v3",
    { qk_nope_head_dim: 0 },
    "qk_nope_head_dim: must be at least 1 with attention mla, got 0; the default is 128",
  ],
  [
    "deepseek-v3",
    { sliding_window: 128 },
    "sliding_window: must be 0 with attention mla, got 128; leave it out, or set attention to gqa or csa",
  ],
  [
    "deepseek-v3",
    { hc_mult: 4 },
    "hc_mult: must be 1 with attention mla, got 4; leave it out, or set attention to csa",
  ],
  [
    "deepseek-llm-7b",
    { index_n_heads: 64 },
    "index_n_heads: must be 0 with attention gqa, got 64; leave it out, or set attention to mla or csa",
  ],
  [
    "deepseek-v2-lite",
    { index_n_heads: 64 },
    "q_lora_rank: must be above 0 with attention csa or an indexer, which read the query latent, got 0; V3.2 has 1536",
  ],
  [
    "deepseek-llm-7b",
    { n_dense_layers: 1 },
    "n_routed_experts: must be at least 1, since 29 layers are MoE, got 0; raise it, or n_dense_layers to n_layers",
  ],
  [
    "deepseek-v3",
    { n_activated_experts: 0 },
    "n_activated_experts: must be at least 1, since 58 layers are MoE, got 0; raise it, or n_dense_layers to n_layers",
  ],
  [
    "deepseek-v4-flash",
    { n_layers: 42 },
    "compress_ratios: must have one value for each of the 43 layers, MTP layers last",
  ],
  [
    "deepseek-v3",
    { compress_ratios: [4] },
    "compress_ratios: must be empty with attention mla, got [4]; leave it out or set attention to csa",
  ],
  ["deepseek-v4-flash", { o_groups: 7 }, "o_groups: must divide n_heads (64), got 7; V4-Flash has 8 groups of 8 heads"],
  [
    "deepseek-v4-flash",
    { index_n_heads: 0 },
    "index_n_heads: must be above 0 where compress_ratios has 4, whose entries the indexer selects, got 0; V4 has 64",
  ],
  [
    "deepseek-v4-flash",
    { moe_inter_dim: 100 },
    "expert_dtype: must be null unless dim (4096) and moe_inter_dim (100) are multiples of 32",
  ],
  [
    "deepseek-v3",
    { architecture: "encoder" },
    'architecture: must be decoder with mla, csa, MoE layers, MTP or vision, got "encoder"; an encoder has attention gqa and only dense layers',
  ],
] as const)("%s with %j", (preset, overrides, message) => {
  const got = failure(preset, overrides);
  expect(got.slice(0, message.length)).toBe(message);
});
