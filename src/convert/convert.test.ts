import * as fs from "node:fs";
import * as path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  ConversionFolder,
  differences,
  modelOf,
  rawTensors,
  SMALL_V4,
  writeRaw,
} from "../../test/helpers/conversion.ts";
import { diesAfter, fullAfter } from "../../test/helpers/failing-files.ts";
import { plainValues, writeRandomFolder } from "../../test/helpers/random-checkpoint.ts";
import { openModel } from "../blueprint/node.ts";
import { fromBf16Bits, toBf16Bits } from "../core/dtype.ts";
import { fromE4m3Bits, fromF16Bits, toF16Bits } from "../core/float-formats.ts";
import { encodeFp8Rows } from "../core/index.ts";
import { writeSafetensors, type FilePort } from "../formats/index.ts";
import { nodeFiles, openGguf } from "../formats/node.ts";
import { planConversion, verifyConversion } from "./node.ts";

const at = new ConversionFolder();
afterAll(() => at[Symbol.dispose]());

const inFolder = (...names: string[]): string => at.path(...names);
const convert: ConversionFolder["convert"] = (...options) => at.convert(...options);
const failure = (promise: Promise<unknown>): Promise<string> => at.failure(promise);

/** Sizes that no block of 128 divides, two layers, all kinds of parts. */
const ODD = { nLayers: 2, nDenseLayers: 1, vocabSize: 300, dim: 160, interDim: 200, moeInterDim: 72 };
const ONE_GROUP = { nExpertGroups: 1, nLimitedGroups: 1, normTopkProb: false };
const HEADS = { nHeads: 4, nKvHeads: 2, headDim: 40 };
type Settings = Record<string, unknown>;
const MODELS: Readonly<Record<string, readonly [preset: string, settings: Settings]>> = {
  tiny: ["tiny", {}],
  "v3-fp8": ["tiny", { ...ODD, dtype: "fp8" }],
  "v3-fp8-ue8m0": ["tiny", { ...ODD, dtype: "fp8", scaleFmt: "ue8m0" }],
  "v2-direct-q": ["tiny", { qLoraRank: 0, scoreFunc: "softmax", topkMethod: "greedy", ...ONE_GROUP }],
  moe: ["deepseek-moe-16b", { ...ODD, ...HEADS, nRoutedExperts: 4, nActivatedExperts: 2, dtype: "bf16" }],
  llama: ["deepseek-llm-7b", { ...ODD, ...HEADS, nDenseLayers: 2, dtype: "f16" }],
};

const made = new Map<string, Promise<void>>();
async function source(name: string): Promise<string> {
  if (!made.has(name)) made.set(name, writeRandomFolder(inFolder(name), modelOf(...MODELS[name]!)));
  await made.get(name);
  return inFolder(name);
}

const ROUND = {
  bf16: (value: number) => fromBf16Bits(toBf16Bits(value)),
  f16: (value: number) => fromF16Bits(toF16Bits(value)),
  f32: Math.fround,
};

/** The f32 biases of the router and the norms of no kind are rounded to f32 only. */
function rounded(values: Map<string, Float64Array>, dtype: keyof typeof ROUND): Map<string, Float64Array> {
  const keeps = (name: string): boolean => name.endsWith("e_score_correction_bias");
  return new Map([...values].map(([name, own]) => [name, keeps(name) ? own : own.map(ROUND[dtype])]));
}

function sorted<T>(values: ReadonlyMap<string, T>): [string, T][] {
  return [...values].toSorted(([a], [b]) => (a < b ? -1 : 1));
}

describe("a folder to a folder", () => {
  test.each(["tiny", "v3-fp8", "v3-fp8-ue8m0", "moe", "llama"] as const)(
    "%s: every value is the source's, rounded once",
    async (name) => {
      const from = await source(name);
      for (const dtype of ["f32", "bf16", "f16"] as const) {
        await convert(from, `${name}-${dtype}`, dtype);
        const { model: config } = await openModel(inFolder(`${name}-${dtype}`));
        expect([config.dtype, config.scaleFmt]).toEqual([dtype, null]);
        const due = rounded(await plainValues(from), dtype);
        expect(differences(await plainValues(inFolder(`${name}-${dtype}`)), due)).toEqual([]);
      }
    },
  );

  test("bf16 through f32 and back has the same bytes", async () => {
    const first = await convert(await source("moe"), "there-bf16", "bf16");
    await convert(inFolder("there-bf16"), "there-f32", "f32");
    const back = await convert(inFolder("there-f32"), "back-bf16", "bf16");
    expect(back.digests).toEqual(first.digests);
  });

  test("shards hold no more than asked, the index names every tensor, the tokenizer comes along", async () => {
    const from = await source("tiny");
    await convert(from, "sharded", "bf16", { maxShardBytes: 40_000 });
    const names = fs.readdirSync(inFolder("sharded"));
    const shards = names.filter((name) => name.endsWith(".safetensors"));
    expect(names.filter((name) => !shards.includes(name))).toEqual([
      "config.json",
      "model.safetensors.index.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    expect(shards[0]).toBe(`model-00001-of-0000${shards.length}.safetensors`);
    const whole = rounded(await plainValues(from), "bf16");
    expect(differences(await plainValues(inFolder("sharded")), whole)).toEqual([]);
    const index = JSON.parse(fs.readFileSync(inFolder("sharded", "model.safetensors.index.json"), "utf8")) as {
      metadata: { total_size: number };
    };
    const { source: opened } = await openModel(inFolder("sharded"));
    const tensors = "tensors" in opened ? [...opened.tensors.values()] : [];
    expect(index.metadata.total_size).toBe(tensors.reduce((sum, { bytes }) => sum + bytes, 0));
    for (const shard of shards) {
      const own = tensors.filter(({ file }) => file.endsWith(shard));
      expect(own.length === 1 || own.reduce((sum, { bytes }) => sum + bytes, 0) <= 40_000).toBe(true);
    }
  });

  test("experts fused and taken apart again are the same bytes", async () => {
    const from = await source("tiny");
    const { digests } = await convert(from, "apart", "f32");
    await convert(from, "fused", "f32", { fusedExperts: true });
    const { source: opened } = await openModel(inFolder("fused"));
    const { shape } = ("tensors" in opened ? opened.tensors : new Map()).get("model.layers.1.mlp.experts.gate_up_proj");
    expect(shape).toEqual([8, 32, 32]);
    const values = await plainValues(inFolder("fused"));
    const up = (await plainValues(from)).get("model.layers.1.mlp.experts.3.up_proj.weight")!;
    expect(values.get("model.layers.1.mlp.experts.gate_up_proj")!.slice((3 * 32 + 16) * 32, 4 * 32 * 32)).toEqual(up);
    expect((await convert(inFolder("fused"), "apart-again", "f32")).digests).toEqual(digests);
  });
});

test("V4's packed fp4 experts, byte scales and tables of integers become bf16", async () => {
  await writeRandomFolder(inFolder("v4"), modelOf("deepseek-v4-flash", SMALL_V4));
  await convert(inFolder("v4"), "v4-bf16", "bf16");
  const due = await plainValues(inFolder("v4"));
  const got = await plainValues(inFolder("v4-bf16"));
  const { source: opened } = await openModel(inFolder("v4-bf16"));
  const tensors = "tensors" in opened ? opened.tensors : new Map<string, never>();
  for (const [name, values] of due) {
    if (tensors.get(name)?.dtype === "BF16") due.set(name, values.map(ROUND.bf16));
  }
  expect(differences(got, due)).toEqual([]);
});

describe("GGUF", () => {
  test.each(["tiny", "v2-direct-q", "moe", "llama"] as const)(
    "%s as f32 GGUF and back is the folder's own values",
    async (name) => {
      const from = await source(name);
      const { notices } = await convert(from, `${name}.gguf`, "f32");
      expect(notices.some((notice) => notice.includes("MTP"))).toBe(name !== "moe" && name !== "llama");
      await openModel(inFolder(`${name}.gguf`));
      await convert(inFolder(`${name}.gguf`), `${name}-from-gguf`, "f32");
      const [before, after] = [await plainValues(from), await plainValues(inFolder(`${name}-from-gguf`))];
      const main = [...before].filter(([own]) => !own.startsWith("model.layers.2."));
      expect(differences(after, new Map(main))).toEqual([]);
      const tokenizer = fs.readFileSync(inFolder(`${name}-from-gguf`, "tokenizer_config.json"), "utf8");
      expect(JSON.parse(tokenizer)).toHaveProperty("tokenizer_class", "PreTrainedTokenizerFast");
    },
  );

  /** The values of a tensor, f32 or not, as [rows][columns]. */
  async function ggufRows(file: string, name: string, columns: number): Promise<number[][]> {
    const gguf = await openGguf(inFolder(file));
    const values = [...new Float32Array((await gguf.read(name)).slice().buffer)];
    await gguf.close();
    return Array.from({ length: values.length / columns }, (_, row) =>
      values.slice(row * columns, (row + 1) * columns),
    );
  }

  test.each(["llama", "moe"])("queries and keys of %s are written in neighbouring pairs", async (name) => {
    const from = await source(name);
    await convert(from, `pairs-${name}.gguf`, "f32");
    for (const [own, key] of [
      ["k", "k_proj"],
      ["q", "q_proj"],
    ] as const) {
      const rows = await ggufRows(`pairs-${name}.gguf`, `blk.0.attn_${own}.weight`, 160);
      const values = (await plainValues(from)).get(`model.layers.0.self_attn.${key}.weight`)!;
      const row = (n: number): number[] => [...values.subarray(n * 160, (n + 1) * 160)];
      expect([rows[0], rows[1], rows[2], rows[41]]).toEqual([row(0), row(20), row(1), row(60)]);
    }
  });

  test("queries of deepseek2 stay in their order", async () => {
    const from = await source("v2-direct-q");
    await convert(from, "ordered.gguf", "f32");
    const rows = await ggufRows("ordered.gguf", "blk.0.attn_q.weight", 32);
    expect(rows.flat()).toEqual([...(await plainValues(from)).get("model.layers.0.self_attn.q_proj.weight")!]);
  });

  test("keys that llama.cpp needs, the token list as long as the embedding, norms and router in f32", async () => {
    await convert(await source("tiny"), "keys.gguf", "q8_0");
    const gguf = await openGguf(inFolder("keys.gguf"));
    const plain = [...gguf.metadata].map(([key, entry]) => [key, entry.type === "list" ? entry.count : entry.value]);
    const tokens = await gguf.readList("tokenizer.ggml.tokens");
    const types = await gguf.readList("tokenizer.ggml.token_type");
    await gguf.close();
    expect(Object.fromEntries(plain)).toMatchInlineSnapshot(`
      {
        "deepseek2.attention.head_count": 2,
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.key_length": 24,
        "deepseek2.attention.key_length_mla": 16,
        "deepseek2.attention.kv_lora_rank": 16,
        "deepseek2.attention.layer_norm_rms_epsilon": 9.999999974752427e-7,
        "deepseek2.attention.q_lora_rank": 16,
        "deepseek2.attention.value_length": 16,
        "deepseek2.attention.value_length_mla": 8,
        "deepseek2.block_count": 2,
        "deepseek2.context_length": 256,
        "deepseek2.embedding_length": 32,
        "deepseek2.expert_count": 8,
        "deepseek2.expert_feed_forward_length": 16,
        "deepseek2.expert_gating_func": 2,
        "deepseek2.expert_group_count": 4,
        "deepseek2.expert_group_used_count": 2,
        "deepseek2.expert_shared_count": 1,
        "deepseek2.expert_used_count": 2,
        "deepseek2.expert_weights_norm": true,
        "deepseek2.expert_weights_scale": 1,
        "deepseek2.feed_forward_length": 64,
        "deepseek2.leading_dense_block_count": 1,
        "deepseek2.rope.dimension_count": 8,
        "deepseek2.rope.freq_base": 10000,
        "deepseek2.rope.scaling.factor": 4,
        "deepseek2.rope.scaling.original_context_length": 64,
        "deepseek2.rope.scaling.type": "yarn",
        "deepseek2.rope.scaling.yarn_beta_fast": 32,
        "deepseek2.rope.scaling.yarn_beta_slow": 1,
        "deepseek2.rope.scaling.yarn_log_multiplier": 0.10000000149011612,
        "deepseek2.vocab_size": 512,
        "general.architecture": "deepseek2",
        "general.file_type": 7,
        "general.name": "tiny",
        "general.quantization_version": 2,
        "tokenizer.ggml.add_bos_token": true,
        "tokenizer.ggml.add_eos_token": false,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.merges": 0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.pre": "deepseek-v3",
        "tokenizer.ggml.token_type": 512,
        "tokenizer.ggml.tokens": 512,
      }
    `);
    expect([tokens[0], types[0], tokens[511], types[511]]).toEqual(["<｜begin▁of▁sentence｜>", 3, "[PAD511]", 5]);
    const kinds = [
      "attn_norm.weight",
      "ffn_gate_inp.weight",
      "exp_probs_b.bias",
      "ffn_down_exps.weight",
      "attn_q_a.weight",
    ];
    expect(kinds.map((name) => gguf.tensors.get(`blk.1.${name}`)!.dtype)).toEqual(["F32", "F32", "F32", "F16", "Q8_0"]);
  });

  test("rows that are no whole blocks fall back as in llama.cpp, and are reported", async () => {
    const { notices } = await convert(await source("tiny"), "fallback.gguf", "q4_k");
    expect(notices).toMatchInlineSnapshot(`
      [
        "1 MTP layer is left out: llama.cpp does not run MTP here",
        "12 tensors with rows of 32 values, no whole blocks of Q4_K, will be Q5_0",
        "8 tensors with rows of 16 values, no whole blocks of Q4_K, will be F16",
        "2 tensors with rows of 8 values, no whole blocks of Q4_K, will be F16",
        "1 tensor with rows of 64 values, no whole blocks of Q4_K, will be Q5_0",
      ]
    `);
  });

  test("a split file reads as one, and its parts go on where they ended", async () => {
    const from = await source("tiny");
    const dying = { files: diesAfter(nodeFiles, 60), freeBytes: plenty };
    expect(await failure(convert(from, "split.gguf", "f16", { maxShardBytes: 40_000 }, dying))).toBe("Error: killed");
    const left = fs.readdirSync(inFolder("split.gguf.partial")).filter((name) => name.endsWith(".gguf"));
    expect(left.length).toBeGreaterThan(0);
    const { digests } = await convert(from, "split.gguf", "f16", { maxShardBytes: 40_000 });
    const parts = [...digests.keys()];
    expect(parts[0]).toBe(`split-00001-of-0000${parts.length}.gguf`);
    const { blueprint } = await openModel(inFolder(parts[0]!));
    const due = blueprint.parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
    const verified = await verifyConversion(inFolder("split.gguf"), digests);
    expect([verified.files, verified.values]).toEqual([parts.length, due]);
    expect(fs.existsSync(inFolder("split.gguf.partial"))).toBe(false);
  });

  const REFUSED: readonly [why: string, base: string, settings: Settings][] = [
    ["27 layers with compressed queries", "tiny", { nLayers: 27, nDenseLayers: 26 }],
    ["26 layers with compressed queries", "tiny", { nLayers: 26, nDenseLayers: 25 }],
    ["a shared expert missing", "tiny", { nSharedExperts: 0 }],
    ["one group of several", "tiny", { nLimitedGroups: 1 }],
    [
      "groups of one expert",
      "v2-direct-q",
      { nExpertGroups: 8, nLimitedGroups: 4, topkMethod: "group_limited_greedy" },
    ],
    ["mscale without mscale_all_dim", "tiny", { mscale: 1, mscaleAllDim: 0 }],
    ["deepseek with normalised weights", "moe", { normTopkProb: true }],
    ["heads narrower than the model", "llama", { headDim: 20 }],
    ["V4", "v4", {}],
  ];
  test("what llama.cpp would not load, or compute otherwise, is refused with the reason", async () => {
    const messages: string[] = [];
    for (const [why, base, settings] of REFUSED) {
      const [preset, own] = base === "v4" ? ["deepseek-v4-flash", SMALL_V4] : MODELS[base]!;
      const from = inFolder(why.replaceAll(" ", "-"));
      await writeRandomFolder(from, modelOf(preset, { ...own, ...settings }));
      messages.push(`${why}: ${await failure(convert(from, "refused.gguf", "f32"))}`);
    }
    expect(messages).toMatchInlineSnapshot(`
      [
        "27 layers with compressed queries: UnsupportedError: gguf q_lora_rank: must be 0 with 27 layers, which llama.cpp takes for V2-Lite, got 16; keep it as safetensors",
        "26 layers with compressed queries: UnsupportedError: gguf q_lora_rank: must be 0 with 26 layers, which llama.cpp takes for V2-Lite, got 16; keep it as safetensors",
        "a shared expert missing: UnsupportedError: gguf n_shared_experts: must be at least 1, got 0; keep it as safetensors",
        "one group of several: UnsupportedError: gguf n_limited_groups: must be above 1 with groups, got 1; keep it as safetensors",
        "groups of one expert: UnsupportedError: gguf n_expert_groups: must leave 2 of 8 experts in a group, got 8; keep it as safetensors",
        "mscale without mscale_all_dim: UnsupportedError: gguf mscale_all_dim: must equal mscale (1) and not be 0 with YaRN, got 0; keep it as safetensors",
        "deepseek with normalised weights: UnsupportedError: gguf norm_topk_prob: must be false for deepseek, got true; keep it as safetensors",
        "heads narrower than the model: UnsupportedError: gguf head_dim: must be dim / n_heads = 40, got 20; keep it as safetensors",
        "V4: UnsupportedError: gguf attention: must be mla or gqa, got "csa"; keep it as safetensors",
      ]
    `);
  });

  test("queries that are not compressed have rank 0, which no loader may guess", async () => {
    await convert(await source("v2-direct-q"), "direct.gguf", "f16");
    const gguf = await openGguf(inFolder("direct.gguf"));
    await gguf.close();
    expect(gguf.metadata.get("deepseek2.attention.q_lora_rank")).toEqual({ type: "u32", value: 0 });
  });

  test("a model whose groups go by their best expert is written with a warning", async () => {
    const settings = { scoreFunc: "softmax", topkMethod: "group_limited_greedy", normTopkProb: false, nMtpLayers: 0 };
    await writeRandomFolder(inFolder("v2-groups"), modelOf("tiny", settings));
    const { notices } = await convert(inFolder("v2-groups"), "v2-groups.gguf", "f32");
    expect(notices).toEqual([
      "llama.cpp picks groups by the sum of their two best experts, this model by the best one: it will route otherwise",
    ]);
    expect((await openModel(inFolder("v2-groups.gguf"))).model.topkMethod).toBe("group_limited_greedy");
  });

  test("groups that limit nothing are left out", async () => {
    await writeRandomFolder(inFolder("all-groups"), modelOf("tiny", { nLimitedGroups: 4 }));
    await convert(inFolder("all-groups"), "all-groups.gguf", "f16");
    const gguf = await openGguf(inFolder("all-groups.gguf"));
    await gguf.close();
    expect(gguf.metadata.has("deepseek2.expert_group_count")).toBe(false);
  });
});

const plenty = (): Promise<number> => Promise.resolve(1e12);

describe("interruptions and small disks", () => {
  test("a second start writes only what is not there, and ends with the same bytes", async () => {
    const from = await source("tiny");
    const { digests, progress } = await convert(from, "straight", "f32", { maxShardBytes: 60_000 });
    const dying = { files: diesAfter(nodeFiles, 70), freeBytes: plenty };
    expect(await failure(convert(from, "resumed", "f32", { maxShardBytes: 60_000 }, dying))).toBe("Error: killed");
    expect(fs.existsSync(inFolder("resumed"))).toBe(false);
    const left = await planConversion({
      source: from,
      target: inFolder("resumed"),
      dtype: "f32",
      maxShardBytes: 60_000,
    });
    await left.close();
    expect(left.doneBytes).toBeGreaterThan(60_000);
    const second = await convert(from, "resumed", "f32", { maxShardBytes: 60_000 });
    expect(second.progress.at(-1)).toBeLessThan(progress.at(-1)!);
    expect(sorted(new Map(second.digests))).toEqual(sorted(new Map(digests)));
    expect(fs.readdirSync(inFolder("resumed"))).toEqual(fs.readdirSync(inFolder("straight")));
  });

  test("an unfinished conversion of another kind is not gone on with", async () => {
    const from = await source("tiny");
    const dying = { files: diesAfter(nodeFiles, 40), freeBytes: plenty };
    await failure(convert(from, "other", "f32", {}, dying));
    expect(await failure(convert(from, "other", "bf16"))).toMatchInlineSnapshot(
      `"ConfigError: target: must have no other unfinished conversion beside it, got "/other"; remove /other.partial, or convert as before to finish it"`,
    );
  });

  test("nor is one of a model that has other settings by now", async () => {
    const from = inFolder("changing");
    await writeRandomFolder(from, modelOf("tiny"));
    await failure(convert(from, "changed-model", "f32", {}, { files: diesAfter(nodeFiles, 40), freeBytes: plenty }));
    const file = path.join(from, "config.json");
    fs.writeFileSync(
      file,
      fs.readFileSync(file, "utf8").replace('"rms_norm_eps": 0.000001', '"rms_norm_eps": 0.00001'),
    );
    expect(await failure(convert(from, "changed-model", "f32"))).toContain("must have no other unfinished conversion");
  });

  test("too small a disk is said before anything is written, a full one leaves no target", async () => {
    const from = await source("tiny");
    const small = { files: nodeFiles, freeBytes: () => Promise.resolve(1000) };
    expect(await failure(convert(from, "no-room", "f32", {}, small))).toMatchInlineSnapshot(
      `"IoError: : must have 17095051 bytes (16.3 MiB) free, of which 16777216 bytes (16.0 MiB) are for headers and the file system, not 1000 bytes (0.0 MiB); free some disk space, choose another disk or a smaller --dtype"`,
    );
    expect(fs.existsSync(inFolder("no-room.partial"))).toBe(false);
    const full: FilePort = fullAfter(nodeFiles, 150_000);
    const message = await failure(convert(from, "filled", "f32", {}, { files: full, freeBytes: plenty }));
    expect(message).toContain("must be writable");
    expect(fs.existsSync(inFolder("filled"))).toBe(false);
  });
});

describe("bad input", () => {
  test("types, targets and sources that do not fit", async () => {
    const from = await source("tiny");
    fs.mkdirSync(inFolder("pickled"));
    fs.copyFileSync(path.join(from, "config.json"), inFolder("pickled", "config.json"));
    fs.writeFileSync(inFolder("pickled", "pytorch_model.bin"), "");
    fs.mkdirSync(inFolder("foreign"));
    fs.writeFileSync(inFolder("foreign", "config.json"), '{"model_type": "mamba"}');
    expect([
      await failure(convert(from, "x", "q8_0")),
      await failure(convert(from, "x.gguf", "q3_k")),
      await failure(convert(from, "tiny", "f32")),
      await failure(convert("deepseek-v3", "x", "bf16")),
      await failure(convert(inFolder("pickled"), "x", "bf16")),
      await failure(convert(inFolder("foreign"), "x", "bf16")),
    ]).toMatchInlineSnapshot(`
      [
        "ConfigError: --dtype: must be one of f32, bf16, f16, fp8, int8 for a folder, got "q8_0"",
        "ConfigError: --dtype: must be one of f32, f16, bf16, q8_0, q6_k, q5_0, q4_k, q4_0 for a .gguf file, got "q3_k"",
        "IoError: /tiny: must not exist yet; choose another path, or remove it",
        "ConfigError: source: must be the path of a checkpoint folder or a .gguf file, got "deepseek-v3"; check the path",
        "UnsupportedError: /pickled/pytorch_model.bin: must not be a pickle, which can run any code when it is loaded, got ".bin"; available: safetensors, gguf; convert it where you trust it: in Python, save_file(torch.load(path, weights_only=True), ...) of safetensors.torch",
        "ConfigError: /foreign/config.json model_type: must be one of llama, deepseek, deepseek_v2, deepseek_v3, deepseek_v32, deepseek_v4, bert, deepseek_vl_v2, got "mamba"",
      ]
    `);
  });

  test("a NaN, an infinity and what f16 cannot hold are named", async () => {
    const messages: string[] = [];
    for (const value of [Number.NaN, Infinity, 70000]) {
      const from = inFolder(`bad-${value}`);
      await writeRandomFolder(from, modelOf("tiny"));
      const values = await plainValues(from);
      const reader = await openModel(from);
      const tensors = "tensors" in reader.source ? reader.source.tensors : new Map();
      const sources = [...values].map(([name, own]) => {
        const changed = Float32Array.from(own);
        if (name === "lm_head.weight") changed[7] = value;
        const bytes = new Uint8Array(changed.buffer);
        return { name, dtype: "F32" as const, shape: tensors.get(name)!.shape as number[], chunks: () => [bytes] };
      });
      await writeSafetensors(nodeFiles, path.join(from, "model.safetensors"), sources);
      messages.push(await failure(convert(from, `out-${value}`, "f16")));
    }
    expect(messages).toMatchInlineSnapshot(`
      [
        "NumericError: lm_head.weight: must be a finite number, got NaN; the checkpoint is damaged; copy or download it again",
        "NumericError: lm_head.weight: must be a finite number, got Infinity; the checkpoint is damaged; copy or download it again",
        "NumericError: lm_head.weight: must be at most 65504 in f16, got 70000; convert to bf16 or f32",
      ]
    `);
  });

  test("verification finds a changed byte", async () => {
    const { digests } = await convert(await source("tiny"), "changed", "bf16");
    expect((await verifyConversion(inFolder("changed"), digests)).tensors).toBe(95);
    const file = inFolder("changed", "model.safetensors");
    const bytes = fs.readFileSync(file);
    bytes[bytes.length - 9]! ^= 1;
    fs.writeFileSync(file, bytes);
    expect(await failure(verifyConversion(inFolder("changed"), digests))).toContain("must have the SHA-256");
  });
});

/** Writes f32 tensors from values that are given by name. */
async function writeValues(
  file: string,
  tensors: Readonly<Record<string, readonly [number[], Float64Array]>>,
): Promise<void> {
  const sources = Object.entries(tensors).map(([name, [shape, values]]) => ({
    name,
    dtype: "F32" as const,
    shape,
    chunks: () => [new Uint8Array(Float32Array.from(values).buffer)],
  }));
  await writeSafetensors(nodeFiles, file, sources);
}

const count = (rows: number, columns: number, of: (i: number) => number): readonly [number[], Float64Array] => [
  [rows, columns],
  Float64Array.from({ length: rows * columns }, (_, i) => of(i)),
];

describe("adapters", () => {
  const Q = "model.layers.0.self_attn.o_proj";
  const EXPERT = "model.layers.1.mlp.experts.3.up_proj";
  async function adapter(name: string, settings: object, tensors: Parameters<typeof writeValues>[1]): Promise<string> {
    fs.mkdirSync(inFolder(name));
    const config = { peft_type: "LORA", r: 2, lora_alpha: 4, bias: "none", ...settings };
    fs.writeFileSync(inFolder(name, "adapter_config.json"), JSON.stringify(config));
    await writeValues(inFolder(name, "adapter_model.safetensors"), tensors);
    return inFolder(name);
  }
  const pair = (module: string, rows: number, columns: number): Parameters<typeof writeValues>[1] => ({
    [`base_model.model.${module}.lora_A.weight`]: count(2, columns, (i) => Math.sin(i)),
    [`base_model.model.${module}.lora_B.weight`]: count(rows, 2, (i) => Math.cos(i)),
  });

  test("a LoRA of a matrix and of one expert is W + alpha / r · B A, all else is as before", async () => {
    const from = await source("tiny");
    const lora = await adapter("lora", {}, { ...pair(Q, 32, 16), ...pair(EXPERT, 16, 32) });
    await convert(from, "merged", "f32", { adapter: lora });
    const due = await plainValues(from);
    for (const [module, rows, columns] of [
      [Q, 32, 16],
      [EXPERT, 16, 32],
    ] as const) {
      const values = due.get(`${module}.weight`)!;
      for (let i = 0; i < rows * columns; i++) {
        const [row, column] = [Math.floor(i / columns), i % columns];
        const term = (k: number): number =>
          Math.fround(Math.cos(2 * row + k)) * Math.fround(Math.sin(k * columns + column));
        values[i] = Math.fround(values[i]! + 2 * (term(0) + term(1)));
      }
    }
    expect(differences(await plainValues(inFolder("merged")), due)).toEqual([]);
  });

  test("rank-stabilised LoRA is W + alpha / √r · B A", async () => {
    const from = await source("tiny");
    const lora = await adapter("rslora", { use_rslora: true, init_lora_weights: true }, pair(Q, 32, 16));
    await convert(from, "stabilised", "f32", { adapter: lora });
    const [before, after] = [await plainValues(from), await plainValues(inFolder("stabilised"))];
    const [old, now] = [before.get(`${Q}.weight`)!, after.get(`${Q}.weight`)!];
    const [row, column] = [5, 3];
    const term = (k: number): number => Math.fround(Math.cos(2 * row + k)) * Math.fround(Math.sin(k * 16 + column));
    const at = 16 * row + column;
    expect(now[at]).toBe(Math.fround(old[at]! + (4 / Math.SQRT2) * (term(0) + term(1))));
  });

  test.each([
    ["fan_in_fan_out", true],
    ["lora_bias", true],
    ["bias", "lora_only"],
    ["modules_to_save", ["lm_head"]],
    ["rank_pattern", { o_proj: 4 }],
    ["alpha_pattern", { o_proj: 8 }],
    ["target_parameters", ["mlp.experts.gate_up_proj"]],
    ["init_lora_weights", "pissa"],
    ["layer_replication", [[0, 2]]],
  ])("%s, which merging would have to follow, is refused by name", async (key, value) => {
    const from = await source("tiny");
    const lora = await adapter(`with-${key}`, { [key]: value }, pair(Q, 32, 16));
    const message = await failure(convert(from, "unmerged", "f32", { adapter: lora }));
    expect(message).toContain(
      `UnsupportedError: /with-${key}/adapter_config.json ${key}: must be that of a plain LoRA`,
    );
    expect(message).toContain("merge the adapter in Python with merge_and_unload()");
  });

  test("what is no plain LoRA of this model is refused", async () => {
    const from = await source("tiny");
    const attempt = async (
      name: string,
      settings: object,
      tensors: Parameters<typeof writeValues>[1],
    ): Promise<string> =>
      failure(convert(from, "unmerged", "f32", { adapter: await adapter(name, settings, tensors) }));
    fs.mkdirSync(inFolder("pickled-lora"));
    fs.writeFileSync(inFolder("pickled-lora", "adapter_model.bin"), "");
    fs.copyFileSync(inFolder("lora", "adapter_config.json"), inFolder("pickled-lora", "adapter_config.json"));
    expect([
      await attempt("dora", { use_dora: true }, pair(Q, 32, 16)),
      await attempt("ia3", { peft_type: "IA3" }, pair(Q, 32, 16)),
      await attempt("foreign-lora", {}, pair("model.layers.9.mlp.gate_proj", 32, 16)),
      await attempt("wide-lora", {}, pair(Q, 32, 17)),
      await failure(convert(from, "unmerged", "f32", { adapter: inFolder("pickled-lora") })),
    ]).toMatchInlineSnapshot(`
      [
        "UnsupportedError: /dora/adapter_config.json use_dora: must be that of a plain LoRA, got true; available: false; merge the adapter in Python with merge_and_unload()",
        "UnsupportedError: /ia3/adapter_config.json peft_type: must be LORA, got "IA3"; available: LORA",
        "FormatError: /foreign-lora/adapter_model.safetensors: must hold LoRA pairs of the model's matrices only, got "base_model.model.model.layers.9.mlp.gate_proj.lora_A.weight"; the adapter is not plain LoRA, or belongs to another model",
        "FormatError: /wide-lora/adapter_model.safetensors: must hold base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight and its B as [32, 16] through one rank, got [32, 2, 2, 17]; the adapter belongs to another model",
        "UnsupportedError: /pickled-lora: must not be a pickle, which can run any code, got ".bin"; available: safetensors; save it again in Python with safe_serialization=True",
      ]
    `);
  });
});

describe("folders of DeepSeek's demo", () => {
  /** The names of its model.py, and the axis along which ranks cut. */
  function demoPlace(name: string): {
    readonly own: string;
    readonly axis: 0 | 1 | undefined;
    readonly expert?: number;
  } {
    const words: Record<string, string> = {
      embed_tokens: "embed",
      input_layernorm: "attn_norm",
      post_attention_layernorm: "ffn_norm",
      self_attn: "attn",
      mlp: "ffn",
      q_a_proj: "wq_a",
      q_a_layernorm: "q_norm",
      q_b_proj: "wq_b",
      kv_a_proj_with_mqa: "wkv_a",
      kv_a_layernorm: "kv_norm",
      kv_b_proj: "wkv_b",
      o_proj: "wo",
      gate_proj: "w1",
      down_proj: "w2",
      up_proj: "w3",
      lm_head: "head",
      e_score_correction_bias: "bias",
    };
    const parts = name
      .replace(/^model\./, "")
      .split(".")
      .map((part) => words[part] ?? part);
    const own = parts.join(".");
    const expert = /\.experts\.(\d+)\./.exec(own)?.[1];
    if (expert !== undefined) return { own, axis: undefined, expert: Number(expert) };
    const last = parts.at(-2)!;
    if (["wo", "w2"].includes(last)) return { own, axis: 1 };
    return { own, axis: ["embed", "head", "wq_b", "wkv_b", "w1", "w3"].includes(last) ? 0 : undefined };
  }

  async function writeDemo(from: string, folder: string): Promise<void> {
    fs.mkdirSync(folder);
    const { source: opened } = await openModel(from);
    const tensors = "tensors" in opened ? opened.tensors : new Map<string, never>();
    const ranks: Record<string, readonly [number[], Float64Array]>[] = [{}, {}];
    for (const [name, values] of await plainValues(from)) {
      if (name.startsWith("model.layers.2.")) continue;
      const shape = [...tensors.get(name)!.shape];
      const { own, axis, expert } = demoPlace(name);
      for (const [rank, file] of ranks.entries()) {
        if (expert !== undefined && Math.floor(expert / 4) !== rank) continue;
        if (axis === undefined) {
          file[own] = [shape, values];
          continue;
        }
        const columns = shape[1]!;
        const half = shape.map((n, i) => (i === axis ? n / 2 : n));
        const isOwn = (i: number): boolean =>
          (axis === 0 ? Math.floor(i / columns) / half[0]! : (i % columns) / half[1]!) >= rank;
        const isOthers = (i: number): boolean =>
          (axis === 0 ? Math.floor(i / columns) / half[0]! : (i % columns) / half[1]!) >= rank + 1;
        file[own] = [half, values.filter((_, i) => isOwn(i) && !isOthers(i))];
      }
    }
    for (const [rank, file] of ranks.entries())
      await writeValues(path.join(folder, `model${rank}-mp2.safetensors`), file);
  }

  test("ranks are put together again, and a missing one is named", async () => {
    const from = await source("tiny");
    await writeDemo(from, inFolder("demo"));
    await convert(inFolder("demo"), "from-demo", "f32", { config: path.join(from, "config.json") });
    const main = [...(await plainValues(from))].filter(([name]) => !name.startsWith("model.layers.2."));
    expect(differences(await plainValues(inFolder("from-demo")), new Map(main))).toEqual([]);
    const nameless = await failure(convert(inFolder("demo"), "x", "f32"));
    const wrong = await failure(convert(inFolder("demo"), "x", "f32", { config: "nano" }));
    fs.rmSync(inFolder("demo", "model1-mp2.safetensors"));
    const missing = await failure(convert(inFolder("demo"), "x", "f32", { config: path.join(from, "config.json") }));
    expect([nameless, wrong, missing]).toMatchInlineSnapshot(`
      [
        "IoError: /demo: must hold a config.json, which folders of DeepSeek's demo have not; name its model: --config deepseek-v3, or the path of a config.json",
        "FormatError: /demo/model0-mp2.safetensors: must hold embed as [2048, 192] over all ranks, got [512, 32]; check --config",
        "IoError: /demo/model1-mp2.safetensors: must exist; copy all ranks",
      ]
    `);
  });

  test("fp8 matrices are read with the scales that the demo names X.scale", async () => {
    const from = await source("tiny");
    await writeDemo(from, inFolder("demo-fp8"));
    const hf = "model.layers.1.self_attn.q_a_proj.weight";
    const values = (await plainValues(from)).get(hf)!;
    const { weight, scales } = encodeFp8Rows(Float32Array.from(values), 32, null);
    const matrix = { dtype: "F8_E4M3", shape: [16, 32], bytes: weight } as const;
    const scale = { dtype: "F32", shape: [1, 1], bytes: new Uint8Array(scales.buffer) } as const;
    for (const rank of [0, 1]) {
      const file = inFolder("demo-fp8", `model${rank}-mp2.safetensors`);
      const tensors = await rawTensors(file);
      tensors.set("layers.1.attn.wq_a.weight", matrix).set("layers.1.attn.wq_a.scale", scale);
      await writeRaw(file, tensors);
    }
    await convert(inFolder("demo-fp8"), "from-demo-fp8", "f32", { config: path.join(from, "config.json") });
    const due = Float64Array.from(weight, (byte) => Math.fround(fromE4m3Bits(byte) * scales[0]!));
    expect((await plainValues(inFolder("from-demo-fp8"))).get(hf)).toEqual(due);
  });
});
