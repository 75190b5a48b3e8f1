import { execFile } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { root } from "../../test/helpers/cli.ts";
import { modelOf } from "../../test/helpers/conversion.ts";
import { drawnGguf } from "../../test/helpers/drawn-gguf.ts";
import { drawWeights } from "../../test/helpers/drawn-weights.ts";
import { ggufKeys } from "../../test/helpers/gguf-keys.ts";
import { writeRandomFolder } from "../../test/helpers/random-checkpoint.ts";
import { writeSparseFolder, writeSparseGguf } from "../../test/helpers/sparse-checkpoint.ts";
import { blueprint, countStorage } from "../blueprint/index.ts";
import { resolveConfig } from "../config/index.ts";
import { writeGguf, writeSafetensors } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";

const run = promisify(execFile);
let folder: string;
let program: string;

beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "fathom-inspect-"));
  program = path.join(folder, "inspect.mjs");
  const stdin = {
    contents: `import { inspectCommand } from "./src/cli/inspect.ts";
      try { await inspectCommand().parseAsync(); }
      catch (error) { console.error(error.message); process.exitCode = 1; }`,
    resolveDir: root,
    loader: "ts" as const,
  };
  // commander is CommonJS and asks for require.
  const banner = { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' };
  await build({ stdin, banner, bundle: true, platform: "node", format: "esm", outfile: program, logLevel: "error" });
});
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

const inFolder = (name: string): string => path.join(folder, name);

function sparse(name: string, preset = "tiny"): string {
  fs.mkdirSync(inFolder(name));
  writeSparseFolder(preset, inFolder(name), 2);
  return inFolder(name);
}

async function inspect(...args: string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [program, ...args], { maxBuffer: 2 ** 26 });
  return stdout.replaceAll(folder, "");
}

async function refusal(...args: string[]): Promise<string> {
  const error = (await run(process.execPath, [program, ...args]).catch((reason: unknown) => reason)) as {
    stderr: string;
  };
  return error.stderr.replaceAll(folder, "").trim();
}

describe("fathom inspect", () => {
  test("shows types, tensors of equal layers together, and that all are there", async () => {
    expect(await inspect(sparse("whole"))).toMatchInlineSnapshot(`
      "whole: safetensors, 95 tensors in 2 files

      type  tensors  elements    bytes
      F32        95    78,000  312,000

      metadata
      format    pt

      tensor                                                      type  shape       bytes
      model.embed_tokens.weight                                   F32   [512, 32]  65,536
      model.norm.weight                                           F32   [32]          128
      lm_head.weight                                              F32   [512, 32]  65,536
      model.layers.0–2.input_layernorm.weight                × 3  F32   [32]          384
      model.layers.0–2.post_attention_layernorm.weight       × 3  F32   [32]          384
      model.layers.0–2.self_attn.q_a_proj.weight             × 3  F32   [16, 32]    6,144
      model.layers.0–2.self_attn.q_a_layernorm.weight        × 3  F32   [16]          192
      model.layers.0–2.self_attn.q_b_proj.weight             × 3  F32   [32, 16]    6,144
      model.layers.0–2.self_attn.kv_a_proj_with_mqa.weight   × 3  F32   [24, 32]    9,216
      model.layers.0–2.self_attn.kv_a_layernorm.weight       × 3  F32   [16]          192
      model.layers.0–2.self_attn.kv_b_proj.weight            × 3  F32   [32, 16]    6,144
      model.layers.0–2.self_attn.o_proj.weight               × 3  F32   [32, 16]    6,144
      model.layers.0.mlp.gate_proj.weight                         F32   [64, 32]    8,192
      model.layers.0.mlp.down_proj.weight                         F32   [32, 64]    8,192
      model.layers.0.mlp.up_proj.weight                           F32   [64, 32]    8,192
      model.layers.1–2.mlp.gate.weight                       × 2  F32   [8, 32]     2,048
      model.layers.1–2.mlp.gate.e_score_correction_bias      × 2  F32   [8]            64
      model.layers.1–2.mlp.experts.0–7.gate_proj.weight     × 16  F32   [16, 32]   32,768
      model.layers.1–2.mlp.experts.0–7.down_proj.weight     × 16  F32   [32, 16]   32,768
      model.layers.1–2.mlp.experts.0–7.up_proj.weight       × 16  F32   [16, 32]   32,768
      model.layers.1–2.mlp.shared_experts.gate_proj.weight   × 2  F32   [16, 32]    4,096
      model.layers.1–2.mlp.shared_experts.down_proj.weight   × 2  F32   [32, 16]    4,096
      model.layers.1–2.mlp.shared_experts.up_proj.weight     × 2  F32   [16, 32]    4,096
      model.layers.2.enorm.weight                                 F32   [32]          128
      model.layers.2.hnorm.weight                                 F32   [32]          128
      model.layers.2.eh_proj.weight                               F32   [32, 64]    8,192
      model.layers.2.shared_head.norm.weight                      F32   [32]          128

      every tensor of the model is there, and no other
      "
    `);
  });

  test("shows the metadata of a GGUF, long lists by their length", async () => {
    const keys = ggufKeys("tiny", "deepseek2");
    writeSparseGguf(inFolder("tiny.gguf"), { preset: "tiny", arch: "deepseek2", keys, tokens: 512 });
    const text = await inspect(inFolder("tiny.gguf"));
    expect(text).toContain("general.architecture");
    expect(text).toContain('{"list_of":"text","count":512}');
    expect(text).toContain("every tensor of the model is there, and no other");
  });

  test("names what is missing, unexpected or of another shape", async () => {
    const at = sparse("wrong");
    const file = path.join(at, "config.json");
    const config = JSON.parse(fs.readFileSync(file, "utf8")) as object;
    fs.writeFileSync(
      file,
      JSON.stringify({ ...config, vocab_size: 500, num_nextn_predict_layers: 0, q_lora_rank: null }),
    );
    expect((await inspect(at)).split("\n").slice(-45).join("\n")).toContain(
      "of another shape: 2\n  model.embed_tokens.weight [512, 32], the model has [500, 32]",
    );
    const { check } = JSON.parse(await inspect(at, "--json")) as { check: Record<string, unknown[]> };
    expect([check.missing, check.unexpected!.length, check.mismatched!.length]).toEqual([
      ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"],
      // The two layers' three tensors of the query latent, and the MTP layer's 42.
      48,
      2,
    ]);
  });

  test("a file of no known model is shown with the reason, its names without control characters", async () => {
    const source = { name: "a\u001B[2Jb", dtype: "F32", shape: [1], chunks: () => [new Uint8Array(4)] } as const;
    await writeSafetensors(nodeFiles, inFolder("lone.safetensors"), [source]);
    const text = await inspect(inFolder("lone.safetensors"));
    expect(text).toContain("a\\u001b[2Jb");
    expect(text).toContain("not compared with a model: one .safetensors file does not say of which it is");
  });

  test("--json is one document with every tensor and its place", async () => {
    const { name, by_dtype, tensors } = JSON.parse(await inspect(inFolder("whole"), "--json")) as {
      name: string;
      by_dtype: object;
      tensors: object[];
    };
    const { tensors: count, elements, bytes } = countStorage(blueprint(resolveConfig("tiny").model));
    const whole = { F32: { tensors: count, elements, bytes } };
    expect([name, by_dtype, tensors.length]).toEqual(["whole", whole, count]);
    expect(Object.keys(tensors[0]!)).toEqual(["name", "dtype", "shape", "offset", "bytes", "file"]);
  });

  test("--diff shows what was removed, added and changed", async () => {
    const keys = ggufKeys("tiny", "deepseek2");
    writeSparseGguf(inFolder("before.gguf"), { preset: "tiny", arch: "deepseek2", keys, tokens: 512 });
    const old = { ...keys, "rope.freq_base": { type: "f32", value: 500 } as const };
    writeSparseGguf(inFolder("after.gguf"), { preset: "tiny", arch: "deepseek2", keys: old, splitKvB: false });
    expect(await inspect("--diff", inFolder("before.gguf"), inFolder("after.gguf"))).toMatchInlineSnapshot(`
      "metadata: 4
        deepseek2.rope.freq_base: 10000 → 500
        tokenizer.ggml.tokens: {"list_of":"text","count":512} → {"list_of":"text","count":0}
        tokenizer.ggml.token_type: [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1… (1025 characters) → []
        tokenizer.ggml.merges: {"list_of":"text","count":512} → {"list_of":"text","count":0}
      removed: 4
        blk.0–1.attn_k_b.weight × 2
        blk.0–1.attn_v_b.weight × 2
      added: 2
        blk.0–1.attn_kv_b.weight × 2
      tensors equal in name, type and shape: 30; their values are not compared
      "
    `);
  });

  test("--diff between a folder and a GGUF file compares parameters, whatever their tensors are called", async () => {
    const folder = sparse("parameters");
    const keys = ggufKeys("tiny", "deepseek2");
    writeSparseGguf(inFolder("parameters.gguf"), { preset: "tiny", arch: "deepseek2", keys, tokens: 512 });
    expect(await inspect("--diff", folder, inFolder("parameters.gguf"))).toMatchInlineSnapshot(`
      "removed: 21
        model.layers.2.enorm.weight
        model.layers.2.hnorm.weight
        model.layers.2.eh_proj.weight
        model.layers.2.input_layernorm.weight
        model.layers.2.post_attention_layernorm.weight
        model.layers.2.shared_head.norm.weight
        model.layers.2.self_attn.q_a_proj.weight
        model.layers.2.self_attn.q_a_layernorm.weight
        model.layers.2.self_attn.q_b_proj.weight
        model.layers.2.self_attn.kv_a_proj_with_mqa.weight
        model.layers.2.self_attn.kv_a_layernorm.weight
        model.layers.2.self_attn.kv_b_proj.weight
        model.layers.2.self_attn.o_proj.weight
        model.layers.2.mlp.gate.weight
        model.layers.2.mlp.gate.e_score_correction_bias
        model.layers.2.mlp.experts.*.gate_proj.weight
        model.layers.2.mlp.experts.*.down_proj.weight
        model.layers.2.mlp.experts.*.up_proj.weight
        model.layers.2.mlp.shared_experts.gate_proj.weight
        model.layers.2.mlp.shared_experts.down_proj.weight
        model.layers.2.mlp.shared_experts.up_proj.weight
      changed: 21
        model.embed_tokens.weight: F32 [512, 32] → Q5_0 [512, 32]
        lm_head.weight: F32 [512, 32] → Q5_0 [512, 32]
        model.layers.0–1.self_attn.q_a_proj.weight × 2: F32 [16, 32] → Q5_0 [16, 32]
        model.layers.0–1.self_attn.q_b_proj.weight × 2: F32 [32, 16] → F16 [32, 16]
        model.layers.0–1.self_attn.kv_a_proj_with_mqa.weight × 2: F32 [24, 32] → Q5_0 [24, 32]
        model.layers.0–1.self_attn.kv_b_proj.weight × 2: F32 [32, 16] → F16 [32, 16]
        model.layers.0–1.self_attn.o_proj.weight × 2: F32 [32, 16] → F16 [32, 16]
        model.layers.0.mlp.gate_proj.weight: F32 [64, 32] → Q5_0 [64, 32]
        model.layers.0.mlp.down_proj.weight: F32 [32, 64] → Q5_0 [32, 64]
        model.layers.0.mlp.up_proj.weight: F32 [64, 32] → Q5_0 [64, 32]
        model.layers.1.mlp.experts.*.gate_proj.weight: F32 [8, 16, 32] → Q5_0 [8, 16, 32]
        model.layers.1.mlp.experts.*.down_proj.weight: F32 [8, 32, 16] → F16 [8, 32, 16]
        model.layers.1.mlp.experts.*.up_proj.weight: F32 [8, 16, 32] → Q5_0 [8, 16, 32]
        model.layers.1.mlp.shared_experts.gate_proj.weight: F32 [16, 32] → Q5_0 [16, 32]
        model.layers.1.mlp.shared_experts.down_proj.weight: F32 [32, 16] → F16 [32, 16]
        model.layers.1.mlp.shared_experts.up_proj.weight: F32 [16, 32] → Q5_0 [16, 32]
      parameters equal in name, type and shape: 11; their values are not compared
      "
    `);
    const json = JSON.parse(await inspect("--diff", inFolder("parameters.gguf"), folder, "--json")) as {
      compared: string;
      removed: string[];
      added: string[];
      changed: object[];
    };
    expect([json.compared, json.removed, json.added.length]).toEqual(["parameters", [], 21]);
    expect(json.changed).toContainEqual({
      name: "model.layers.1.mlp.experts.*.gate_proj.weight",
      before: "Q5_0 [8, 16, 32]",
      after: "F32 [8, 16, 32]",
    });
  });

  test("--diff of a folder with its own values in the other format finds them equal", async () => {
    const model = modelOf("tiny", { nMtpLayers: 0, dtype: "f32" });
    await writeRandomFolder(inFolder("own"), model);
    const content = drawnGguf(model, drawWeights(model, 1), { splitKvB: true, type: "F32" });
    await writeGguf(nodeFiles, inFolder("own.gguf"), content);
    expect(await inspect("--diff", inFolder("own"), inFolder("own.gguf"))).toBe(
      `parameters equal in name, type and shape: ${blueprint(model).parameters.length}; their values are not compared\n`,
    );
    // Scales belong to their weights.
    await writeRandomFolder(inFolder("own-fp8"), { ...model, dtype: "fp8" });
    const text = await inspect("--diff", inFolder("own-fp8"), inFolder("own.gguf"));
    expect(text).not.toMatch(/removed|added|scale_inv/);
    expect(text).toContain("model.layers.1.mlp.experts.*.down_proj.weight: F8_E4M3 [8, 32, 16] → F32 [8, 32, 16]");
  });

  test("--diff across formats shows of how many tensors a parameter lacks some", async () => {
    const folder = sparse("partial");
    const file = path.join(folder, "model.safetensors.index.json");
    const index = JSON.parse(fs.readFileSync(file, "utf8")) as { weight_map: Record<string, string> };
    delete index.weight_map["model.layers.1.mlp.experts.3.up_proj.weight"];
    fs.writeFileSync(file, JSON.stringify(index));
    const keys = ggufKeys("tiny", "deepseek2");
    writeSparseGguf(inFolder("partial.gguf"), { preset: "tiny", arch: "deepseek2", keys, tokens: 512 });
    const text = await inspect("--diff", folder, inFolder("partial.gguf"));
    expect(text).toContain(
      "model.layers.1.mlp.experts.*.up_proj.weight: F32 [8, 16, 32] in 7 of 8 tensors → Q5_0 [8, 16, 32]",
    );
  });

  test("what has no tensors is refused", async () => {
    expect(await refusal("deepseek-v3")).toMatchInlineSnapshot(
      `"checkpoint: must be the path of a folder, a .safetensors or a .gguf file with tensors, got "deepseek-v3"; a preset has no file; fathom params counts a model without its weights"`,
    );
    expect(await refusal("nowhere.safetensors")).toMatchInlineSnapshot(
      `"checkpoint: must be the path of a folder, a .safetensors or a .gguf file with tensors, got "nowhere.safetensors"; no such file or folder"`,
    );
    fs.writeFileSync(inFolder("weights.bin"), "");
    expect(await refusal(inFolder("weights.bin"))).toContain("must not be a pickle");
    fs.writeFileSync(inFolder("broken.gguf"), "GGUF");
    expect(await refusal(inFolder("broken.gguf"))).toMatchInlineSnapshot(
      `"/broken.gguf at byte 4: must have 4 bytes more here, got 0; the file is cut off or damaged; copy or download it again"`,
    );
  });
});
