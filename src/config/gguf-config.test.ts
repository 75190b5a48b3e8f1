/** What the metadata of a GGUF file means where a key is absent, or where an architecture does not read it. */

import { describe, expect, test } from "vitest";
import { ggufKeys } from "../../test/helpers/gguf-keys.ts";
import { resolveConfig, type ModelConfig } from "./index.ts";
import { fromGguf } from "./gguf-config.ts";

type Values = Readonly<Record<string, unknown>>;

/** The model of a file with a preset's keys, some of them changed; one that is undefined is left out. */
function read(preset: string, arch: string, change: Values = {}, rows = 512): ModelConfig {
  const keys = Object.entries(ggufKeys(preset, arch)).map(([key, entry]) => [key, "value" in entry && entry.value]);
  const all = Object.entries({ ...Object.fromEntries(keys), ...change }).filter(([, value]) => value !== undefined);
  const metadata = new Map<string, unknown>([
    ["general.architecture", arch],
    ...all.map(([key, value]): [string, unknown] => [`${arch}.${key}`, value]),
  ]);
  const shapeOf = (name: string) => (/^(token_embd|output)\.weight$/.test(name) ? [rows, 32] : undefined);
  return resolveConfig({ model: fromGguf({ file: "x.gguf", metadata, shapeOf }) }).model;
}

describe("a GGUF file", () => {
  test.each([
    [26, 512],
    [27, 102_400],
    [48, 128_256],
    [30, 512],
  ])("of %i layers and a vocabulary of %i without a rank of queries has none", (layers, rows) => {
    const model = read("tiny", "deepseek2", { block_count: layers, "attention.q_lora_rank": undefined }, rows);
    expect([model.nLayers, model.vocabSize, model.qLoraRank]).toEqual([layers, rows, 0]);
  });

  test("with softmax picks groups by their best expert, with sigmoid by their two best", () => {
    expect(read("deepseek-v2", "deepseek2").topkMethod).toBe("group_limited_greedy");
    expect(read("deepseek-v2-lite", "deepseek2").topkMethod).toBe("greedy");
    expect(read("deepseek-v3", "deepseek2").topkMethod).toBe("noaux_tc");
  });

  test("of deepseek2 without a gating function is softmax without normalisation", () => {
    const absent = { expert_gating_func: undefined, expert_weights_norm: undefined, expert_weights_scale: undefined };
    const { scoreFunc, normTopkProb, routeScale } = read("deepseek-v2-lite", "deepseek2", absent);
    expect([scoreFunc, normTopkProb, routeScale]).toEqual(["softmax", false, 1]);
  });

  test("of deepseek is softmax without normalisation whatever its keys say, as llama.cpp has it", () => {
    const { scoreFunc, normTopkProb, topkMethod } = read("deepseek-moe-16b", "deepseek", {
      expert_gating_func: 2,
      expert_weights_norm: true,
    });
    expect([scoreFunc, normTopkProb, topkMethod]).toEqual(["softmax", false, "greedy"]);
  });

  test("of llama with experts is of another family", () => {
    expect(() => read("deepseek-llm-7b", "llama", { expert_count: 8 })).toThrow(
      "x.gguf llama.expert_count: must be 0: experts of other families are not known, got 8; take a model with experts of deepseek, deepseek2, deepseek32, deepseek4",
    );
    expect(read("deepseek-llm-7b", "llama", { expert_count: 0 }).nRoutedExperts).toBe(0);
  });
});
