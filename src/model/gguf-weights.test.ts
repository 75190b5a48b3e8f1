/** GGUF files of every architecture that runs against the Hugging Face folders of the same weights. */

import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { testBackends } from "../../test/helpers/backends.ts";
import { drawnGguf, type GgufStyle } from "../../test/helpers/drawn-gguf.ts";
import { drawWeights, type DrawnTensor } from "../../test/helpers/drawn-weights.ts";
import { fromHfConfig, hfConfigText, resolveConfig, type ModelConfig } from "../config/index.ts";
import { decodeBlocks, encodeBlocks, MemoryError, typeForRows, UnsupportedError } from "../core/index.ts";
import { writeGguf, writeSafetensors, writeSplitGguf } from "../formats/index.ts";
import { nodeFiles, openSafetensors } from "../formats/node.ts";
import { createReferenceBackend } from "../kernels/index.ts";
import { Scope } from "../tensor/index.ts";
import { DeepSeekModel, ropeTable } from "./index.ts";
import { loadParameters, readModelConfig } from "./node.ts";

const GOLDENS = new URL("../../test/golden/checkpoints/", import.meta.url).pathname;
const TOKENS = 48;
const SEED = 7;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-gguf-weights-"));
});
afterEach(() => rm(folder, { recursive: true }));

/** Models of `deepseek2` always rotate neighbouring pairs. */
async function modelOf(golden: string): Promise<ModelConfig> {
  const reader = await openSafetensors(join(GOLDENS, golden));
  await reader.close();
  const { model } = resolveConfig({ model: fromHfConfig(reader.metadata.config!) });
  return model.attention === "mla" ? { ...model, ropeInterleave: true } : model;
}

type Weights = ReadonlyMap<string, DrawnTensor>;

async function writeFolder(model: ModelConfig, weights: Weights): Promise<string> {
  await writeFile(join(folder, "config.json"), hfConfigText(model, { bos: 0, eos: 1 }));
  const sources = [...weights].map(([name, { shape, values }]) => {
    return { name, dtype: "F32" as const, shape, chunks: () => [new Uint8Array(values.buffer)] };
  });
  await writeSafetensors(nodeFiles, join(folder, "model.safetensors"), sources);
  return folder;
}

async function writeModel(model: ModelConfig, weights: Weights, style: Partial<GgufStyle> = {}): Promise<string> {
  const path = join(folder, "model.gguf");
  await writeGguf(nodeFiles, path, drawnGguf(model, weights, { splitKvB: true, type: "F32", ...style }));
  return path;
}

type Create = ReturnType<typeof testBackends>[number]["create"];

async function logitsOf(path: string, create: Create = createReferenceBackend): Promise<Float32Array> {
  using scope = Scope.root(create());
  const { model: config } = await readModelConfig(path);
  const parameters = await loadParameters(scope, path, config);
  const ints = (values: readonly number[]) => scope.from(values, [values.length], "i32");
  const places = Array.from({ length: TOKENS }, (_, i) => i);
  const at = {
    positions: ints(places),
    seqStarts: ints([0, TOKENS]),
    ropeTable: scope.from(ropeTable(config, TOKENS), [TOKENS, config.qkRopeHeadDim]),
  };
  const tokens = ints(places.map((i) => (17 * i + 5) % config.vocabSize));
  const logits = new DeepSeekModel({ ...config, nMtpLayers: 0 }, parameters).logits(scope, tokens, at);
  return (await logits.read()) as Float32Array;
}

const NAMES = await readdir(GOLDENS);

describe.each(testBackends())("on the $label backend", ({ create }) => {
  test.each(NAMES)(
    "an F32 file of %s gives the logits of its folder bit by bit, in both layouts of keys",
    async (name) => {
      const model = await modelOf(name);
      const weights = drawWeights(model, SEED);
      const expected = await logitsOf(await writeFolder(model, weights), create);
      for (const splitKvB of [true, false]) {
        const found = await logitsOf(await writeModel(model, weights, { splitKvB }), create);
        expect(found).toEqual(expected);
      }
    },
  );
});

/** What a type keeps of weights whose rows are not permuted between types. */
function throughType({ shape, values }: DrawnTensor, name: string, type: GgufStyle["type"]): DrawnTensor {
  if (shape.length === 1 || name.endsWith("mlp.gate.weight")) return { shape, values };
  const dtype = typeForRows(type, shape[1]!);
  const stored = new Float32Array(values.length);
  decodeBlocks(dtype, encodeBlocks(dtype, values), stored);
  if (dtype === "F16") return { shape, values: stored };
  const rounded = new Float32Array(values.length);
  decodeBlocks("BF16", encodeBlocks("BF16", stored), rounded);
  return { shape, values: rounded };
}

const WIDE = { ...{ vocab_size: 259, dim: 64, inter_dim: 96, moe_inter_dim: 32 }, n_mtp_layers: 0 };

test.each(["F16", "BF16", "Q8_0", "Q4_0"] as const)(
  "a file of %s gives the logits of what the type keeps, quantised matrices rounded to bf16",
  async (type) => {
    const { model } = resolveConfig("tiny", { ...WIDE, kv_lora_rank: 32 });
    const weights = drawWeights(model, SEED);
    const kept = new Map([...weights].map(([name, tensor]) => [name, throughType(tensor, name, type)]));
    const expected = await logitsOf(await writeFolder(model, kept));
    const found = await logitsOf(await writeModel(model, weights, { type, splitKvB: false }));
    expect(found).toEqual(expected);
  },
);

test("the parts of a split file give the logits of the whole, whichever of them is named", async () => {
  const { model } = resolveConfig("tiny", WIDE);
  const content = drawnGguf(model, drawWeights(model, SEED), { splitKvB: true, type: "F32" });
  await writeGguf(nodeFiles, join(folder, "whole.gguf"), content);
  const paths = await writeSplitGguf(nodeFiles, join(folder, "part"), content, 100_000);
  expect(paths.length).toBeGreaterThan(1);
  const expected = await logitsOf(join(folder, "whole.gguf"));
  for (const path of [paths[0]!, paths.at(-1)!]) expect(await logitsOf(path)).toEqual(expected);
  await rm(paths[1]!);
  await expect(logitsOf(paths[0]!)).rejects.toThrow(/part-00002-of-\d+\.gguf: must/);
});

test("F32 and F16 take 4 bytes a weight in memory, matrices of other types 2", async () => {
  const { model } = resolveConfig("tiny", WIDE);
  const weights = drawWeights(model, SEED);
  for (const [type, dtype] of [
    ["F32", "f32"],
    ["F16", "f32"],
    ["BF16", "bf16"],
    ["Q8_0", "bf16"],
  ] as const) {
    using scope = Scope.root(createReferenceBackend());
    const path = await writeModel(model, weights, { type });
    const parameters = await loadParameters(scope, path, (await readModelConfig(path)).model);
    expect(parameters.get("layers.0.ffn.w1").value.dtype, type).toBe(dtype);
    expect(parameters.get("layers.1.ffn.gate").value.dtype, type).toBe("f32");
    expect(parameters.get("norm").value.dtype, type).toBe("f32");
  }
});

test("weights that need more than the limit are refused with both numbers before anything is allocated", async () => {
  const { model } = resolveConfig("tiny", WIDE);
  const weights = drawWeights(model, SEED);
  const bytes = [...weights.values()].reduce((sum, { values }) => sum + values.byteLength, 0);
  for (const path of [await writeFolder(model, weights), await writeModel(model, weights)]) {
    const backend = createReferenceBackend();
    using scope = Scope.root(backend);
    let allocations = 0;
    const alloc = backend.alloc.bind(backend);
    backend.alloc = (size) => (allocations++, alloc(size));
    const refused = await loadParameters(scope, path, model, bytes - 1).catch((error: unknown) => error);
    const mib = (size: number): string => (size / 2 ** 20).toFixed(1);
    expect(refused).toBeInstanceOf(MemoryError);
    expect((refused as MemoryError).message).toContain(
      `${path}: needs ${bytes} bytes (${mib(bytes)} MiB) of ${bytes - 1} bytes (${mib(bytes - 1)} MiB) available;`,
    );
    expect(allocations).toBe(0);
    await loadParameters(scope, path, model, bytes);
    expect(allocations).toBeGreaterThan(0);
  }
});

test("a type that holds no weights, and a tensor of another shape, are refused by name", async () => {
  const { model } = resolveConfig("tiny", WIDE);
  const content = drawnGguf(model, drawWeights(model, SEED), { splitKvB: true, type: "F32" });
  const path = join(folder, "model.gguf");
  const withOutput = (change: object) => ({
    ...content,
    tensors: content.tensors.map((tensor) => (tensor.name === "output.weight" ? { ...tensor, ...change } : tensor)),
  });
  const bytes = (count: number) => ({ chunks: () => [new Uint8Array(count)] });
  await writeGguf(nodeFiles, path, withOutput({ dtype: "I8", ...bytes(259 * 64) }));
  const refused = await logitsOf(path).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(UnsupportedError);
  expect((refused as Error).message).toMatch(
    /output\.weight: must be stored in a type that loads, got "I8"; available: F32/,
  );
  await writeGguf(nodeFiles, path, withOutput({ shape: [258, 64], ...bytes(4 * 258 * 64) }));
  await expect(logitsOf(path)).rejects.toThrow(/must hold output\.weight as \[259, 64\], got \[258, 64\]/);
});
