/** The rules under which llama.cpp loads a file and computes what the model does: each is kept, or the model refused. */

import { describe, expect, test } from "vitest";
import { modelOf } from "../../test/helpers/conversion.ts";
import { ggufKeys } from "./node.ts";

type Settings = Record<string, unknown>;
const LATENT = { nMtpLayers: 0 };
const DIRECT = { ...LATENT, qLoraRank: 0 };
const PLAIN = { nLayers: 2, nDenseLayers: 1 };

/** The metadata without the prefix of the architecture. */
function keysOf(preset: string, settings: Settings): Map<string, unknown> {
  const { architecture, metadata } = ggufKeys(modelOf(preset, settings));
  const plain = [...metadata].map(([key, entry]) => [
    key.replace(`${architecture}.`, ""),
    "value" in entry && entry.value,
  ]);
  return new Map(plain as [string, unknown][]);
}

function refusal(preset: string, settings: Settings): string {
  try {
    ggufKeys(modelOf(preset, settings));
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("must be refused");
}

describe("the rank of queries", () => {
  const sizes = (nLayers: number, vocabSize = 512): Settings => ({ nLayers, nDenseLayers: nLayers - 1, vocabSize });

  test("is written whatever it is, for a loader guesses an absent one only with 26 or 27 layers, or 48 and a vocabulary of 128,256", () => {
    for (const [layers, vocabulary] of [[2], [25], [26], [27], [48], [48, 128_256]]) {
      const keys = keysOf("tiny", { ...DIRECT, ...sizes(layers!, vocabulary) });
      expect([layers, keys.get("attention.q_lora_rank")]).toEqual([layers, 0]);
    }
    expect(keysOf("tiny", LATENT).get("attention.q_lora_rank")).toBe(16);
  });

  test("must be 0 at the sizes at which a loader does not look for compressed queries, and at no others", () => {
    for (const [layers, vocabulary] of [[26], [27], [48, 128_256]]) {
      expect(refusal("tiny", { ...LATENT, ...sizes(layers!, vocabulary) })).toBe(
        `gguf q_lora_rank: must be 0 with ${layers} layers, which llama.cpp takes for V2-Lite, got 16; keep it as safetensors`,
      );
    }
    for (const [layers, vocabulary] of [[25], [28], [48], [48, 129_280], [47, 128_256]]) {
      expect(keysOf("tiny", { ...LATENT, ...sizes(layers!, vocabulary) }).get("block_count")).toBe(layers);
    }
  });
});

describe("groups of experts", () => {
  const groups = (nExpertGroups: number, nLimitedGroups: number, nRoutedExperts = 8): Settings => ({
    ...{ ...LATENT, nExpertGroups, nLimitedGroups, nRoutedExperts },
    ...{ nActivatedExperts: 2 },
  });
  const written = (settings: Settings): unknown[] => {
    const keys = keysOf("tiny", settings);
    return [keys.get("expert_group_count"), keys.get("expert_group_used_count")];
  };

  test("are written where several of them, and not all, can be picked, of two experts at least", () => {
    expect(written(groups(4, 2))).toEqual([4, 2]);
    expect(written(groups(4, 3))).toEqual([4, 3]);
    expect(written(groups(3, 2, 9))).toEqual([3, 2]);
  });

  test("are left out where there is one, or all are picked", () => {
    expect(written(groups(1, 1))).toEqual([undefined, undefined]);
    expect(written(groups(4, 4))).toEqual([undefined, undefined]);
    expect(written(groups(2, 2))).toEqual([undefined, undefined]);
  });

  test("of which a single one is picked, or that have one expert, would end llama.cpp, and are refused", () => {
    expect(refusal("tiny", groups(4, 1))).toContain("n_limited_groups: must be above 1 with groups, got 1");
    const single = { scoreFunc: "softmax", topkMethod: "group_limited_greedy", normTopkProb: false };
    expect(refusal("tiny", { ...groups(8, 2), ...single })).toContain("must leave 2 of 8 experts in a group, got 8");
  });

  test("scored by their best expert are written with a notice, and only they", () => {
    const notice = /groups by the sum of their two best experts, this model by the best one/;
    const v2 = { scoreFunc: "softmax", topkMethod: "group_limited_greedy", normTopkProb: false };
    expect(ggufKeys(modelOf("tiny", { ...groups(4, 2), ...v2 })).notices).toEqual([expect.stringMatching(notice)]);
    expect(ggufKeys(modelOf("tiny", { ...groups(4, 4), ...v2 })).notices).toEqual([]);
    expect(ggufKeys(modelOf("tiny", groups(4, 2))).notices).toEqual([]);
  });
});

describe("YaRN", () => {
  test("is written with a tenth of mscale_all_dim as multiplier, both mscales being equal and not 0", () => {
    const keys = keysOf("tiny", { ...LATENT, mscale: 0.8, mscaleAllDim: 0.8 });
    expect(keys.get("rope.scaling.type")).toBe("yarn");
    expect(keys.get("rope.scaling.yarn_log_multiplier")).toBeCloseTo(0.08, 12);
    for (const [mscale, mscaleAllDim] of [
      [1, 0],
      [1, 0.8],
    ]) {
      expect(refusal("tiny", { ...LATENT, mscale, mscaleAllDim })).toBe(
        `gguf mscale_all_dim: must equal mscale (${mscale}) and not be 0 with YaRN, got ${mscaleAllDim}; keep it as safetensors`,
      );
    }
  });

  test("that stretches nothing is none, and says so", () => {
    const keys = keysOf("tiny", { ...LATENT, ropeFactor: 1 });
    expect([...keys.keys()].filter((key) => key.startsWith("rope.scaling"))).toEqual(["rope.scaling.type"]);
    expect(keys.get("rope.scaling.type")).toBe("none");
  });

  test("with plain heads, which llama.cpp stretches in its own way, is refused", () => {
    for (const preset of ["deepseek-llm-7b", "deepseek-moe-16b"]) {
      const stretched = { ropeFactor: 4, originalSeqLen: 1024 };
      expect(refusal(preset, stretched)).toMatch(/^gguf rope_factor: must be 1 for (llama|deepseek), got 4/);
    }
  });
});

describe("what decides an expert's weight", () => {
  const ROUTING = ["expert_gating_func", "expert_weights_norm", "expert_weights_scale"];
  const routing = (preset: string, settings: Settings): unknown[] => {
    const keys = keysOf(preset, settings);
    return ROUTING.map((key) => keys.get(key));
  };

  test("always stands in the file", () => {
    expect(routing("tiny", LATENT)).toEqual([2, true, 1]);
    expect(routing("deepseek-v2-lite", {})).toEqual([1, false, 1]);
    expect(routing("deepseek-v3", LATENT)).toEqual([2, true, 2.5]);
    expect(routing("deepseek-moe-16b", {})).toEqual([1, false, 1]);
  });

  test("in deepseek is softmax without normalisation and without groups, and all else is refused", () => {
    const plain = { ...PLAIN, nRoutedExperts: 8, nActivatedExperts: 2 };
    const all: readonly Settings[] = [
      { scoreFunc: "sigmoid", topkMethod: "noaux_tc", normTopkProb: true },
      { normTopkProb: true },
      { topkMethod: "group_limited_greedy", nExpertGroups: 4, nLimitedGroups: 2 },
    ];
    expect(all.map((settings) => refusal("deepseek-moe-16b", { ...plain, ...settings }))).toMatchInlineSnapshot(`
      [
        "gguf score_func: must be softmax for deepseek, got "sigmoid"; keep it as safetensors",
        "gguf norm_topk_prob: must be false for deepseek, got true; keep it as safetensors",
        "gguf n_expert_groups: must be 1 for deepseek, got 4; keep it as safetensors",
      ]
    `);
  });

  test("needs a shared expert, without which llama.cpp has no layer of experts", () => {
    for (const preset of ["tiny", "deepseek-moe-16b"]) {
      const settings = { ...PLAIN, ...LATENT, nSharedExperts: 0 };
      expect(refusal(preset, settings)).toContain("n_shared_experts: must be at least 1, got 0");
    }
  });
});

test("MTP layers are left out with a notice, and not counted as layers", () => {
  const { notices } = ggufKeys(modelOf("tiny", { nMtpLayers: 2 }));
  expect(notices).toEqual(["2 MTP layers are left out: llama.cpp does not run MTP here"]);
  expect(keysOf("tiny", { nMtpLayers: 2 }).get("block_count")).toBe(2);
  expect(ggufKeys(modelOf("tiny", LATENT)).notices).toEqual([]);
});
