import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ggufKeys } from "../../test/helpers/gguf-keys.ts";
import { writeSparseFolder, writeSparseGguf } from "../../test/helpers/sparse-checkpoint.ts";
import { resolveConfig, type ModelConfig } from "../config/index.ts";
import type { GgufEntry } from "../formats/index.ts";
import { checkStored, openModel, readModel } from "./node.ts";

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "fathom-open-"));
});
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

const inFolder = (name: string): string => path.join(folder, name);

function sparse(name: string, preset: string, shards = 2): string {
  const at = inFolder(name);
  fs.mkdirSync(at);
  writeSparseFolder(preset, at, shards);
  return at;
}

async function failure(model: string): Promise<string> {
  const error = await openModel(model).then(
    () => undefined,
    (reason: unknown) => reason as Error,
  );
  return `${error?.name}: ${error?.message}`.replaceAll(folder, "");
}

/** Settings of training, serving and storage, which a GGUF has no key for. */
const NOT_IN_GGUF = new Set([
  "dtype",
  "scaleFmt",
  "expertDtype",
  "routerBiasSpeed",
  "seqBalanceAlpha",
  "initStd",
  "mtpLossWeight",
  "maxBatchSize",
]);

function essence(model: ModelConfig): object {
  return Object.fromEntries(Object.entries(model).filter(([name]) => !NOT_IN_GGUF.has(name)));
}

describe("what MODEL means", () => {
  test("a preset", async () => {
    const { name, model, blueprint, source } = await openModel("deepseek-v3");
    expect([name, model.nLayers, source.kind]).toEqual(["deepseek-v3", 61, "preset"]);
    expect(blueprint.model).toBe(model);
  });

  test.each(["tiny", "deepseek-v2-lite", "deepseek-v3.2", "deepseek-v4-flash", "deepseek-moe-16b"])(
    "the released folder of %s, its configuration alone, and its config.json",
    async (preset) => {
      const at = sparse(`folder-${preset}`, preset);
      const opened = await openModel(at);
      expect([opened.name, opened.source.kind]).toEqual([`folder-${preset}`, "folder"]);
      const config = await openModel(path.join(at, "config.json"));
      expect([config.source.kind, config.model]).toEqual(["config", opened.model]);
      for (const file of fs.readdirSync(at)) if (file !== "config.json") fs.rmSync(path.join(at, file));
      expect((await openModel(at)).source).toEqual({ kind: "config", path: path.join(at, "config.json") });
    },
  );

  test("a run folder means its newest checkpoint", async () => {
    const run = inFolder("run");
    fs.mkdirSync(run);
    fs.writeFileSync(path.join(run, "latest"), "step-2\n");
    expect(await failure(run)).toMatchInlineSnapshot(
      `"FormatError: /run/latest: must name a checkpoint beside it, got "step-2"; write into it the name of a checkpoint that is there"`,
    );
    sparse("run/step-2", "tiny");
    expect((await openModel(run)).name).toBe("step-2");
  });

  test("no preset, no path, no model", async () => {
    fs.writeFileSync(inFolder("notes.txt"), "");
    fs.mkdirSync(inFolder("empty"));
    expect(await failure("deepseek-v33")).toMatchInlineSnapshot(
      `"ConfigError: model: must be a preset, or the path of a config.json, a checkpoint folder or a .gguf file, got "deepseek-v33"; did you mean deepseek-v3?"`,
    );
    expect(await failure(inFolder("notes.txt"))).toMatchInlineSnapshot(
      `"UnsupportedError: model: must be a model, got "/notes.txt"; available: a preset, config.json, a checkpoint folder, a .gguf file"`,
    );
    expect(await failure(inFolder("empty"))).toMatchInlineSnapshot(
      `"IoError: /empty: must be a folder with config.json; give a folder as it is downloaded from a model hub, or a .gguf file itself"`,
    );
  });

  test("pickles are refused, with the way to convert them", async () => {
    fs.writeFileSync(inFolder("model.pth"), "");
    expect(await failure(inFolder("model.pth"))).toMatchInlineSnapshot(
      `"UnsupportedError: /model.pth: must not be a pickle, which can run any code when it is loaded, got ".pth"; available: safetensors, gguf; convert it where you trust it: in Python, save_file(torch.load(path, weights_only=True), ...) of safetensors.torch"`,
    );
    const at = sparse("pickled", "tiny");
    for (const file of fs.readdirSync(at)) if (file !== "config.json") fs.rmSync(path.join(at, file));
    fs.writeFileSync(path.join(at, "pytorch_model-00001-of-00002.bin"), "");
    expect(await failure(at)).toContain("/pickled/pytorch_model-00001-of-00002.bin: must not be a pickle");
  });
});

describe("GGUF metadata", () => {
  const layouts: [preset: string, arch: string, splitKvB: boolean][] = [
    ["deepseek-llm-67b", "llama", true],
    ["deepseek-moe-16b", "deepseek", true],
    ["deepseek-v2-lite", "deepseek2", false],
    ["deepseek-v2-lite", "deepseek2", true],
    ["deepseek-v2", "deepseek2", true],
    ["deepseek-v3", "deepseek2", true],
    ["deepseek-v3.2", "deepseek32", true],
    ["deepseek-v4-flash", "deepseek4", true],
  ];

  test.each(layouts)("%s as %s (split kv_b %s) is the preset without MTP", async (preset, arch, splitKvB) => {
    const file = inFolder(`${preset}-${splitKvB}.gguf`);
    writeSparseGguf(file, { preset, arch, keys: ggufKeys(preset, arch, splitKvB), splitKvB });
    const { model } = resolveConfig({ preset });
    const { nLayers, compressRatios } = model;
    const main = { nMtpLayers: 0, compressRatios: compressRatios.slice(0, nLayers) };
    const opened = await openModel(file);
    const absent = arch === "llama" || arch === "deepseek4" ? absentKeys(opened.model) : {};
    expect(essence(opened.model)).toEqual(essence({ ...model, ...main, ...absent }));
  });

  /** Settings that decide nothing there, and so have no key. */
  function absentKeys({ interDim, moeInterDim, routeScale, nDenseLayers }: ModelConfig): Partial<ModelConfig> {
    return nDenseLayers === 0 ? { interDim } : { moeInterDim, routeScale };
  }

  async function refusal(change: Record<string, GgufEntry | undefined>, arch = "deepseek2"): Promise<string> {
    const changed = Object.entries({ ...ggufKeys("tiny", "deepseek2"), ...change });
    const keys = Object.fromEntries(changed.filter((entry): entry is [string, GgufEntry] => entry[1] !== undefined));
    writeSparseGguf(inFolder("changed.gguf"), { preset: "tiny", arch, keys });
    return failure(inFolder("changed.gguf"));
  }

  test("another architecture, an absent key, layers of several kinds, another rope", async () => {
    expect(await refusal({}, "qwen3")).toMatchInlineSnapshot(
      `"ConfigError: /changed.gguf general.architecture: must be one of llama, deepseek, deepseek2, deepseek32, deepseek4, got "qwen3""`,
    );
    expect(await refusal({ block_count: undefined })).toMatchInlineSnapshot(
      `"ConfigError: /changed.gguf deepseek2.block_count: must be given; convert the model to GGUF again"`,
    );
    const values = [64, 32];
    expect(await refusal({ feed_forward_length: { type: "list", of: "u32", values } })).toMatchInlineSnapshot(
      `"ConfigError: /changed.gguf deepseek2.feed_forward_length: must be the same in every layer, got [64, 32]; models with layers of several kinds are not known"`,
    );
    expect(await refusal({ "rope.scaling.type": { type: "text", value: "linear" } })).toMatchInlineSnapshot(
      `"ConfigError: /changed.gguf deepseek2.rope.scaling.type: must be yarn or none, got "linear""`,
    );
    expect(await refusal({ expert_gating_func: { type: "u32", value: 3 } })).toMatchInlineSnapshot(
      `"ConfigError: model.scoreFunc: must be one of softmax, sigmoid, sqrtsoftplus, got 3; the default is "softmax""`,
    );
  });

  test("metadata that contradicts the tensors", async () => {
    expect(await refusal({ expert_count: { type: "u32", value: 4 } })).toMatchInlineSnapshot(
      `"ConfigError: model.nExpertGroups: must leave at least 2 of the 4 experts in a group, since noaux_tc scores a group by its two best, got 4; lower n_expert_groups"`,
    );
  });
});

describe("tensors against the model", () => {
  function editIndex(at: string, edit: (map: Record<string, string>) => void): void {
    const file = path.join(at, "model.safetensors.index.json");
    const index = JSON.parse(fs.readFileSync(file, "utf8")) as { weight_map: Record<string, string> };
    edit(index.weight_map);
    fs.writeFileSync(file, JSON.stringify(index));
  }
  function editConfig(at: string, changes: object): void {
    const file = path.join(at, "config.json");
    fs.writeFileSync(file, JSON.stringify({ ...JSON.parse(fs.readFileSync(file, "utf8")), ...changes }));
  }

  test("a tensor that is missing, a shard that is missing, a shard of another model", async () => {
    const at = sparse("missing", "tiny");
    editIndex(at, (map) => delete map["model.norm.weight"]);
    expect(await failure(at)).toMatchInlineSnapshot(
      `"FormatError: /missing: must hold model.norm.weight (one of 1 that are missing); fathom inspect lists all that is missing, unexpected or of another shape"`,
    );
    fs.rmSync(path.join(at, "model-00002-of-00002.safetensors"));
    expect(await failure(at)).toMatchInlineSnapshot(
      `"IoError: /missing/model-00002-of-00002.safetensors: must be there: the model's index names this shard, got "no such file"; copy or download it again"`,
    );
    const other = sparse("other", "lite-slice");
    fs.copyFileSync(
      path.join(other, "model-00002-of-00002.safetensors"),
      path.join(at, "model-00002-of-00002.safetensors"),
    );
    expect(await failure(at)).toMatchInlineSnapshot(
      `"FormatError: /missing/model-00002-of-00002.safetensors: must hold model.layers.0.mlp.up_proj.weight, as the index says; copy or download the shard again"`,
    );
  });

  test("a configuration that contradicts the tensors: shapes, more of them, fewer of them", async () => {
    const at = sparse("contradicted", "tiny");
    editConfig(at, { vocab_size: 513 });
    expect(await failure(at)).toMatchInlineSnapshot(
      `"FormatError: /contradicted: must hold model.embed_tokens.weight as [513, 32], got [512, 32]; fathom inspect lists all that is missing, unexpected or of another shape"`,
    );
    editConfig(at, { vocab_size: 512, num_nextn_predict_layers: 0 });
    expect(await failure(at)).toMatchInlineSnapshot(
      `"FormatError: /contradicted: must hold the model's tensors only, not model.layers.2.enorm.weight (one of 42); fathom inspect lists all that is missing, unexpected or of another shape"`,
    );
    editConfig(at, { num_nextn_predict_layers: 2 });
    expect(await failure(at)).toMatchInlineSnapshot(
      `"FormatError: /contradicted: must hold model.layers.3.enorm.weight (one of 42 that are missing); fathom inspect lists all that is missing, unexpected or of another shape"`,
    );
  });

  test("all differences can be listed instead", async () => {
    const at = sparse("listed", "tiny");
    editIndex(at, (map) => {
      delete map["model.norm.weight"];
    });
    editConfig(at, { vocab_size: 513 });
    const check = checkStored(await readModel(at))!;
    expect(check.missing).toEqual(["model.norm.weight"]);
    expect(check.unexpected).toEqual([]);
    expect(check.mismatched.map(({ name }) => name)).toEqual(["model.embed_tokens.weight", "lm_head.weight"]);
  });
});
