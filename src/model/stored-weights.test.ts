/** Weights in the type in which a file stores them: against folders of the same values in F32. */

import { readFileSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { testBackends } from "../../test/helpers/backends.ts";
import { drawnGguf, type GgufStyle } from "../../test/helpers/drawn-gguf.ts";
import { drawWeights, type DrawnTensor } from "../../test/helpers/drawn-weights.ts";
import { fromHfConfig, hfConfigText, resolveConfig, type ConfigInput, type ModelConfig } from "../config/index.ts";
import {
  decodeBlocks,
  decodeFp8Rows,
  decodeInt8Rows,
  encodeBlocks,
  encodeFp8Rows,
  encodeInt8Rows,
  FormatError,
  MemoryError,
  toBf16Bits,
  toF16Bits,
  typeForRows,
  UnsupportedError,
} from "../core/index.ts";
import {
  writeGguf,
  writeSafetensors,
  writeSplitGguf,
  type GgufContent,
  type SafetensorsDType,
  type TensorSource,
} from "../formats/index.ts";
import { nodeFiles, openGguf, openSafetensors } from "../formats/node.ts";
import { createReferenceBackend, type Backend } from "../kernels/index.ts";
import { Scope, type Compute } from "../tensor/index.ts";
import { DeepSeekModel, ropeTable, type ModelWeights } from "./index.ts";
import { openWeights, readModelConfig } from "./node.ts";
import { ggufPlaces } from "./places.ts";
import { mapWeights } from "./stored-weights.ts";

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

async function logitsOf(
  path: string,
  create: Create = createReferenceBackend,
  compute: Compute = "f32",
): Promise<Float32Array> {
  using scope = Scope.root(create(), { compute });
  const { model: config } = await readModelConfig(path);
  return logitsWith(scope, config, await openWeights(scope, path, config));
}

async function logitsWith(scope: Scope, config: ModelConfig, weights: ModelWeights): Promise<Float32Array> {
  const ints = (values: readonly number[]) => scope.from(values, [values.length], "i32");
  const places = Array.from({ length: TOKENS }, (_, i) => i);
  const at = {
    positions: ints(places),
    seqStarts: ints([0, TOKENS]),
    ropeTable: scope.from(ropeTable(config, TOKENS), [TOKENS, config.qkRopeHeadDim]),
  };
  const tokens = ints(places.map((i) => (17 * i + 5) % config.vocabSize));
  const logits = new DeepSeekModel({ ...config, nMtpLayers: 0 }, weights).logits(scope, tokens, at);
  return (await logits.read()) as Float32Array;
}

/** In parts of the range of `expected`. */
function logitsError(found: Float32Array, expected: Float32Array): number {
  expect(found.length).toBe(expected.length);
  let [low, high, worst] = [Infinity, -Infinity, 0];
  for (const [i, value] of expected.entries()) {
    [low, high] = [Math.min(low, value), Math.max(high, value)];
    worst = Math.max(worst, Math.abs(value - found[i]!));
  }
  return worst / (high - low);
}

/** Sums in f32 of the same factors in another order, through the layers of a small model. */
const REORDERED = 2e-5;

const NAMES = await readdir(GOLDENS);

describe.each(testBackends())("on the $label backend", ({ create }) => {
  test.each(NAMES)("an F32 file of %s gives the logits of its folder, in both layouts of keys", async (name) => {
    const model = await modelOf(name);
    const weights = drawWeights(model, SEED);
    const expected = await logitsOf(await writeFolder(model, weights), create);
    // Plain heads stand in another order in the file, and heads of split keys are products of their own.
    for (const splitKvB of [true, false]) {
      const found = await logitsOf(await writeModel(model, weights, { splitKvB }), create);
      expect(logitsError(found, expected)).toBeLessThan(REORDERED);
    }
  });

  test.each(["F16", "BF16", "Q8_0", "Q5_0", "Q4_0", "Q6_K", "Q4_K"] as const)(
    "a file of %s gives the logits of what the type keeps",
    async (type) => {
      const { model, kept, content } = encodedAs(type);
      const expected = await logitsOf(await writeFolder(model, kept), create);
      const path = join(folder, "model.gguf");
      await writeGguf(nodeFiles, path, content);
      expect(logitsError(await logitsOf(path, create), expected)).toBeLessThan(REORDERED);
    },
  );

  test.each([
    ["f16", storeF16],
    ["bf16", storeBf16],
    ["fp8 blocks", storeFp8],
    ["fp8 blocks, experts fused", (tensors: Weights) => storeFp8(fuse(tensors))],
    ["signed bytes with a scale for each row", (tensors: Weights) => storeInt8(tensors, 1)],
    ["signed bytes with a scale for each half of a row", (tensors: Weights) => storeInt8(tensors, 2)],
  ] as const)("a folder in %s gives the logits of its decoded values", async (_, store) => {
    // Widths that are no multiple of 128, so that blocks at edges are partial and one spans two fused experts.
    const { model } = resolveConfig("tiny", { ...BLOCKS_OF_32, dim: 160, inter_dim: 136, moe_inter_dim: 72 });
    const { sources, kept } = store(drawWeights(model, SEED));
    const expected = await logitsOf(await writeFolder(model, kept), create);
    await writeSafetensors(nodeFiles, join(folder, "model.safetensors"), sources);
    expect(logitsError(await logitsOf(folder, create), expected)).toBeLessThan(REORDERED);
  });

  test("gemm_impl fp8 is near bf16 on weights in fp8 blocks, and bf16 itself on others", async () => {
    const { model } = resolveConfig("tiny", { ...BLOCKS_OF_32, dim: 160, inter_dim: 136, moe_inter_dim: 72 });
    const drawn = drawWeights(model, SEED);
    await writeFolder(model, drawn);
    const exact = await logitsOf(folder, create);
    expect(await logitsOf(folder, create, "fp8")).toEqual(await logitsOf(folder, create, "bf16"));
    await writeSafetensors(nodeFiles, join(folder, "model.safetensors"), storeFp8(drawn).sources);
    const [bf16, fp8] = [await logitsOf(folder, create, "bf16"), await logitsOf(folder, create, "fp8")];
    const error = logitsError(fp8, bf16);
    expect(error).toBeGreaterThan(1e-3);
    // Rounding the weights themselves to e4m3 costs as much.
    expect(error).toBeLessThan(2 * logitsError(bf16, exact));
  });
});

interface EncodedModel {
  readonly model: ModelConfig;
  /** What the type keeps. */
  readonly kept: Weights;
  readonly content: GgufContent;
}

const encoded = new Map<string, EncodedModel>();

/** Drawn weights in a type of GGUF; encoded once, since that is slow. */
function encodedAs(type: GgufStyle["type"]): EncodedModel {
  const found = encoded.get(type) ?? encodeAs(type);
  encoded.set(type, found);
  return found;
}

function encodeAs(type: GgufStyle["type"]): EncodedModel {
  const { model } = resolveConfig("tiny", sizesFor(type));
  const weights = drawWeights(model, SEED);
  const { metadata, tensors } = drawnGguf(model, weights, { type, splitKvB: false });
  const stored = tensors.map((tensor) => {
    const chunks = [...(tensor.chunks() as Iterable<Uint8Array>)];
    return { ...tensor, chunks: () => chunks };
  });
  const kept = new Map([...weights].map(([name, tensor]) => [name, throughType(tensor, name, type)]));
  return { model, kept, content: { metadata, tensors: stored } };
}

/** What a type of GGUF keeps of weights. */
function throughType({ shape, values }: DrawnTensor, name: string, type: GgufStyle["type"]): DrawnTensor {
  if (shape.length === 1 || name.endsWith("mlp.gate.weight")) return { shape, values };
  const dtype = typeForRows(type, shape[1]!);
  const stored = new Float32Array(values.length);
  decodeBlocks(dtype, encodeBlocks(dtype, values), stored);
  return { shape, values: stored };
}

/** Tensors of a folder, and the values that they stand for under the names of separate experts. */
interface Stored {
  readonly sources: TensorSource[];
  readonly kept: Map<string, DrawnTensor>;
}

type Bytes = Uint8Array | Uint16Array | Float32Array | Int8Array;

function sourceOf(name: string, dtype: SafetensorsDType, shape: readonly number[], values: Bytes): TensorSource {
  return { name, dtype, shape, chunks: () => [new Uint8Array(values.buffer, values.byteOffset, values.byteLength)] };
}

function storePlain(weights: Weights, dtype: "F16" | "BF16", bits: (value: number) => number): Stored {
  const tensors = [...weights];
  return {
    sources: tensors.map(([name, { shape, values }]) => sourceOf(name, dtype, shape, Uint16Array.from(values, bits))),
    kept: new Map(
      tensors.map(([name, { shape, values }]) => {
        const stored = new Float32Array(values.length);
        decodeBlocks(dtype, encodeBlocks(dtype, values), stored);
        return [name, { shape, values: stored }];
      }),
    ),
  };
}

function storeF16(weights: Weights): Stored {
  return storePlain(weights, "F16", toF16Bits);
}

function storeBf16(weights: Weights): Stored {
  return storePlain(weights, "BF16", toBf16Bits);
}

const isQuantised = (name: string): boolean => /_proj(\.weight)?$|_mqa|kv_[ab]_proj/.test(name);

/** Every matrix of a stack has blocks of its own. */
function storeFp8(weights: Weights): Stored {
  return storeScaled(weights, "F8_E4M3", "_scale_inv", (rows, columns, values) => {
    const { weight, scales } = encodeFp8Rows(values, columns, null);
    const kept = new Float32Array(values.length);
    decodeFp8Rows(weight, scales, columns, 0, kept);
    return { bytes: weight, scales, kept, blocks: [Math.ceil(rows / 128), Math.ceil(columns / 128)] };
  });
}

function storeInt8(weights: Weights, groups: number): Stored {
  return storeScaled(weights, "I8", "_scale", (rows, columns, values) => {
    const { weight, scales } = encodeInt8Rows(values, columns / groups);
    const bytes = new Uint8Array(weight.buffer);
    const kept = new Float32Array(values.length);
    decodeInt8Rows(bytes, scales, kept);
    return { bytes, scales, kept, blocks: [rows, groups] };
  });
}

interface Encoded {
  readonly bytes: Uint8Array;
  readonly scales: Float32Array;
  readonly kept: Float32Array;
  readonly blocks: readonly number[];
}

function storeScaled(
  weights: Weights,
  dtype: SafetensorsDType,
  suffix: string,
  encode: (rows: number, columns: number, values: Float32Array) => Encoded,
): Stored {
  const sources: TensorSource[] = [];
  const kept = new Map<string, DrawnTensor>();
  for (const [name, { shape, values }] of weights) {
    if (!isQuantised(name)) {
      sources.push(sourceOf(name, "F32", shape, values));
      kept.set(name, { shape, values });
      continue;
    }
    const [rows = 0, columns = 0] = shape.slice(-2);
    const stack = Array.from({ length: values.length / (rows * columns) }, (_, i) =>
      encode(rows, columns, values.subarray(i * rows * columns, (i + 1) * rows * columns)),
    );
    const joined = (parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
    const scaleShape = [...shape.slice(0, -2), ...stack[0]!.blocks];
    const scales = joined(stack.map((one) => new Uint8Array(one.scales.buffer)));
    sources.push(sourceOf(name, dtype, shape, joined(stack.map(({ bytes }) => bytes))));
    sources.push(sourceOf(`${name}${suffix}`, "F32", scaleShape, scales));
    const all = joined(stack.map((one) => new Uint8Array(one.kept.buffer)));
    for (const part of separate(name, { shape, values: new Float32Array(all.buffer) })) kept.set(...part);
  }
  return { sources, kept };
}

/** As transformers 5 holds the experts of a layer: gate_up_proj [E, 2m, d] and down_proj [E, d, m]. */
function fuse(weights: Weights): Map<string, DrawnTensor> {
  const fused = new Map<string, DrawnTensor>();
  for (const [name, { shape, values }] of weights) {
    const match = /^(.*\.experts)\.(\d+)\.(gate|up|down)_proj\.weight$/.exec(name);
    if (match === null) {
      fused.set(name, { shape, values });
      continue;
    }
    const key = `${match[1]}.${match[3] === "down" ? "down" : "gate_up"}_proj`;
    const before = fused.get(key)?.values ?? new Float32Array(0);
    const [rows = 0, columns = 0] = shape;
    const height = match[3] === "down" ? rows : 2 * rows;
    const all = Float32Array.from([...before, ...values]);
    fused.set(key, { shape: [Math.ceil(all.length / (height * columns)), height, columns], values: all });
  }
  return fused;
}

/** A fused tensor as the separate ones of its experts; any other is itself. */
function separate(name: string, tensor: DrawnTensor): [string, DrawnTensor][] {
  const match = /^(.*\.experts)\.(gate_up|down)_proj$/.exec(name);
  if (match === null) return [[name, tensor]];
  const [experts = 0, height = 0, columns = 0] = tensor.shape;
  const kinds = match[2] === "down" ? ["down"] : ["gate", "up"];
  const rows = height / kinds.length;
  return Array.from({ length: experts * kinds.length }, (_, i) => {
    const key = `${match[1]}.${Math.floor(i / kinds.length)}.${kinds[i % kinds.length]}_proj.weight`;
    const values = tensor.values.slice(i * rows * columns, (i + 1) * rows * columns);
    return [key, { shape: [rows, columns], values }];
  });
}

const BLOCKS_OF_32 = {
  ...{ vocab_size: 259, dim: 64, inter_dim: 96, moe_inter_dim: 32, kv_lora_rank: 32, n_mtp_layers: 0 },
};
/** The search for blocks of Q4_K is slow. */
function sizesFor(type: GgufStyle["type"]): ConfigInput {
  if (type === "Q4_K") return { ...BLOCKS_OF_256, n_layers: 1 };
  return type === "Q6_K" ? BLOCKS_OF_256 : BLOCKS_OF_32;
}

const FEW_EXPERTS = { n_routed_experts: 2, n_activated_experts: 1, n_expert_groups: 1, n_limited_groups: 1 };
const BLOCKS_OF_256 = {
  ...{ ...BLOCKS_OF_32, ...FEW_EXPERTS },
  ...{ dim: 256, inter_dim: 256, moe_inter_dim: 256, kv_lora_rank: 256 },
};
test("the parts of a split file give the logits of the whole, whichever of them is named", async () => {
  const { model } = resolveConfig("tiny", BLOCKS_OF_32);
  const content = drawnGguf(model, drawWeights(model, SEED), { splitKvB: true, type: "F32" });
  await writeGguf(nodeFiles, join(folder, "whole.gguf"), content);
  const paths = await writeSplitGguf(nodeFiles, join(folder, "part"), content, 100_000);
  expect(paths.length).toBeGreaterThan(1);
  const expected = await logitsOf(join(folder, "whole.gguf"));
  for (const path of [paths[0]!, paths.at(-1)!]) expect(await logitsOf(path)).toEqual(expected);
  await rm(paths[1]!);
  await expect(logitsOf(paths[0]!)).rejects.toThrow(/part-00002-of-\d+\.gguf: must/);
});

/** A reference backend that maps files as native ones do, and counts. */
function mappingBackend(): { backend: Backend; mapped: string[]; copied: () => number } {
  const backend = createReferenceBackend();
  const mapped: string[] = [];
  let copied = 0;
  const alloc = backend.alloc.bind(backend);
  const mapFile = (path: string, byteOffset: number, byteLength: number): number => {
    const handle = alloc(byteLength);
    const bytes = readFileSync(path).subarray(byteOffset, byteOffset + byteLength);
    if (bytes.length < byteLength) throw new FormatError(path, "must hold the window");
    backend.write(handle, 0, bytes);
    mapped.push(`${byteOffset}+${byteLength}`);
    return handle;
  };
  const counting = { alloc: (bytes: number) => ((copied += bytes), alloc(bytes)), mapFile };
  return { backend: Object.assign(backend, counting), mapped, copied: () => copied };
}

test("nothing of a file whose values are aligned is copied but lists of experts", async () => {
  const { model } = resolveConfig("tiny", BLOCKS_OF_32);
  const drawn = drawWeights(model, SEED);
  const path = await writeModel(model, drawn, { type: "Q8_0" });
  const expected = await logitsOf(path);
  const { backend, mapped, copied } = mappingBackend();
  using scope = Scope.root(backend);
  const weights = await openWeights(scope, path, (await readModelConfig(path)).model);
  const experts = model.nRoutedExperts * (model.nLayers - model.nDenseLayers);
  expect(copied()).toBe(8 * 3 * experts);
  expect(mapped.length).toBeGreaterThan(3 * experts);
  expect(await logitsWith(scope, (await readModelConfig(path)).model, weights)).toEqual(expected);
});

test("values that do not lie at a whole place of theirs are copied as they are stored", async () => {
  const { model } = resolveConfig("tiny", BLOCKS_OF_32);
  await writeFolder(model, drawWeights(model, SEED));
  const expected = await logitsOf(folder);
  const file = join(folder, "model.safetensors");
  const bytes = await readFile(file);
  const header = Number(bytes.readBigUInt64LE());
  // One more space in the header moves every value by a byte.
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header + 1));
  const parts = [length, bytes.subarray(8, 8 + header), Buffer.from(" "), bytes.subarray(8 + header)];
  await writeFile(file, Buffer.concat(parts));
  const { backend, mapped } = mappingBackend();
  expect(await logitsOf(folder, () => backend)).toEqual(expected);
  expect(mapped).toEqual([]);
});

test.each([
  ["maps files", () => mappingBackend().backend, /model\.gguf: must hold the window/],
  ["copies", createReferenceBackend, /must hold \d+ bytes of .*the file was cut off while it was read/],
])("a file that becomes shorter once it is open is refused by a backend that %s", async (_, create, message) => {
  const { model } = resolveConfig("tiny", BLOCKS_OF_32);
  const path = await writeModel(model, drawWeights(model, SEED));
  using scope = Scope.root(create());
  const open = await openGguf(path);
  const places = ggufPlaces(model, open);
  await truncate(path, 50_000);
  const mapping = mapWeights(scope, open, places);
  await expect(mapping).rejects.toThrow(FormatError);
  await expect(mapping).rejects.toThrow(message);
  await open.close();
});

test("experts of one layer in two types are refused by name", async () => {
  const { model } = resolveConfig("tiny", BLOCKS_OF_32);
  const drawn = drawWeights(model, SEED);
  const odd = "model.layers.1.mlp.experts.3.up_proj.weight";
  const { sources } = storeBf16(drawn);
  await writeFolder(model, drawn);
  const mixed = sources.map((one) =>
    one.name === odd ? sourceOf(odd, "F32", one.shape, drawn.get(odd)!.values) : one,
  );
  await writeSafetensors(nodeFiles, join(folder, "model.safetensors"), mixed);
  await expect(logitsOf(folder)).rejects.toThrow(
    `must hold all experts of a layer in one type, BF16 as model.layers.1.mlp.experts.0.up_proj.weight, got "${odd} in F32"`,
  );
});

/** Lists of experts have an entry of 8 bytes for each matrix, and one for its scales. */
function listBytes(model: ModelConfig, entries: number): number {
  return 8 * entries * 3 * model.nRoutedExperts * (model.nLayers - model.nDenseLayers);
}

test("weights take what they have in the file, vectors and scales 4 bytes a value, lists 8 an entry", async () => {
  const { model } = resolveConfig("tiny", BLOCKS_OF_32);
  const drawn = drawWeights(model, SEED);
  const sizes = [...drawn].map(([name, { values }]) => [isQuantised(name) ? 1 : 4, values.length] as const);
  const { sources } = storeFp8(drawn);
  const scales = sources.filter(({ name }) => name.endsWith("_scale_inv"));
  await writeFolder(model, drawn);
  await writeSafetensors(nodeFiles, join(folder, "model.safetensors"), sources);
  using scope = Scope.root(createReferenceBackend());
  const { bytes } = await openWeights(scope, folder, model);
  const blocks = scales.reduce((sum, { shape }) => sum + shape.reduce((product, n) => product * n, 1), 0);
  expect(bytes).toBe(sizes.reduce((sum, [width, count]) => sum + width * count, 4 * blocks + listBytes(model, 2)));
});

test("weights that need more than the limit are refused with both numbers before anything is allocated", async () => {
  const { model } = resolveConfig("tiny", BLOCKS_OF_32);
  const weights = drawWeights(model, SEED);
  const bytes = [...weights.values()].reduce((sum, { values }) => sum + values.byteLength, listBytes(model, 1));
  for (const path of [await writeFolder(model, weights), await writeModel(model, weights)]) {
    const backend = createReferenceBackend();
    using scope = Scope.root(backend);
    let allocations = 0;
    const alloc = backend.alloc.bind(backend);
    backend.alloc = (size) => (allocations++, alloc(size));
    const refused = await openWeights(scope, path, model, bytes - 1).catch((error: unknown) => error);
    const mib = (size: number): string => (size / 2 ** 20).toFixed(1);
    expect(refused).toBeInstanceOf(MemoryError);
    expect((refused as MemoryError).message).toContain(
      `${path}: needs ${bytes} bytes (${mib(bytes)} MiB) of ${bytes - 1} bytes (${mib(bytes - 1)} MiB) available;`,
    );
    expect(allocations).toBe(0);
    await openWeights(scope, path, model, bytes);
    expect(allocations).toBeGreaterThan(0);
  }
});

test("a type that holds no weights, and a tensor of another shape, are refused by name", async () => {
  const { model } = resolveConfig("tiny", BLOCKS_OF_32);
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
