/** Hugging Face folders of every layout and type that loads, and those that must not. */

import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { drawWeights, type DrawnTensor } from "../../test/helpers/drawn-weights.ts";
import { valuesOf } from "../../test/helpers/random-model.ts";
import { hfConfigText, resolveConfig, type ConfigInput, type ModelConfig } from "../config/index.ts";
import { toBf16Bits } from "../core/dtype.ts";
import { toF16Bits } from "../core/float-formats.ts";
import { decodeFp8Rows, encodeFp8Rows } from "../core/fp8-blocks.ts";
import { decodeInt8Rows, encodeInt8Rows } from "../core/int8-rows.ts";
import { writeSafetensors, type SafetensorsDType, type TensorSource } from "../formats/index.ts";
import { nodeFiles, openSafetensors } from "../formats/node.ts";
import { createReferenceBackend } from "../kernels/index.ts";
import { Scope } from "../tensor/index.ts";
import { allocateParameters, loadWeights } from "./index.ts";
import { openWeights } from "./node.ts";

const V3: ConfigInput = { vocab_size: 40, q_lora_rank: 0, moe_inter_dim: 20 };
const SEED = 4;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-weights-"));
});
afterEach(() => rm(folder, { recursive: true }));

function tiny(settings: ConfigInput = {}): ModelConfig {
  return resolveConfig("tiny", { ...V3, ...settings }).model;
}

function bytesOf(values: Float32Array | Uint16Array | Uint8Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

type Encode = (name: string, tensor: DrawnTensor) => TensorSource[];

function source(name: string, dtype: SafetensorsDType, shape: readonly number[], bytes: Uint8Array): TensorSource {
  return { name, dtype, shape, chunks: () => [bytes] };
}

const f32: Encode = (name, { shape, values }) => [source(name, "F32", shape, bytesOf(values))];
const bf16: Encode = (name, { shape, values }) => [
  source(name, "BF16", shape, bytesOf(Uint16Array.from(values, toBf16Bits))),
];
const f16: Encode = (name, { shape, values }) => [
  source(name, "F16", shape, bytesOf(Uint16Array.from(values, toF16Bits))),
];

/** Values that both f16 and bf16 hold exactly. */
function rounded({ shape, values }: DrawnTensor): DrawnTensor {
  return { shape, values: values.map((value) => Math.round(value * 64) / 64) };
}

function fp8(name: string, tensor: DrawnTensor): TensorSource[] {
  const { shape, values } = tensor;
  if (shape.length !== 2 || /embed|lm_head|gate\.weight|eh_proj/.test(name)) return f32(name, tensor);
  const { weight, scales } = encodeFp8Rows(values, shape[1]!, null);
  const blocks = shape.map((n) => Math.ceil(n / 128));
  return [source(name, "F8_E4M3", shape, weight), source(`${name}_scale_inv`, "F32", blocks, bytesOf(scales))];
}

function decodedFp8(values: Float32Array, columns: number): Float32Array {
  const { weight, scales } = encodeFp8Rows(values, columns, null);
  const decoded = new Float32Array(values.length);
  decodeFp8Rows(weight, scales, columns, 0, decoded);
  return decoded;
}

/** Fused experts in fp8, each with blocks of its own. */
function fusedFp8(name: string, tensor: DrawnTensor): TensorSource[] {
  const { shape, values } = tensor;
  if (!name.endsWith("_proj")) return f32(name, tensor);
  const [experts, rows, columns] = shape as [number, number, number];
  const each = Array.from({ length: experts }, (_, e) =>
    encodeFp8Rows(values.subarray(e * rows * columns, (e + 1) * rows * columns), columns, null),
  );
  const joined = (parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
  const blocks = [experts, Math.ceil(rows / 128), Math.ceil(columns / 128)];
  return [
    source(name, "F8_E4M3", shape, joined(each.map(({ weight }) => weight))),
    source(`${name}_scale_inv`, "F32", blocks, joined(each.map(({ scales }) => bytesOf(scales)))),
  ];
}

/** As transformers 5 holds the experts of a layer: gate_up_proj [E, 2m, d] and down_proj [E, d, m]. */
function fused(weights: ReadonlyMap<string, DrawnTensor>, experts: number): Map<string, DrawnTensor> {
  const result = new Map<string, DrawnTensor>();
  for (const [name, tensor] of weights) {
    const match = /^(.*\.experts)\.0\.gate_proj\.weight$/.exec(name);
    if (match !== null) {
      const of = (e: number, part: string): DrawnTensor => weights.get(`${match[1]}.${e}.${part}_proj.weight`)!;
      const stack = (parts: readonly string[]): Float32Array =>
        Float32Array.from(
          Array.from({ length: experts }, (_, e) => parts.map((part) => of(e, part).values))
            .flat(2)
            .flatMap((v) => [...v]),
        );
      const [m, d] = tensor.shape as [number, number];
      result.set(`${match[1]}.gate_up_proj`, { shape: [experts, 2 * m, d], values: stack(["gate", "up"]) });
      result.set(`${match[1]}.down_proj`, { shape: [experts, d, m], values: stack(["down"]) });
    } else if (!/\.experts\.\d+\./.test(name)) result.set(name, tensor);
  }
  return result;
}

async function write(config: ModelConfig, weights: ReadonlyMap<string, DrawnTensor>, encode: Encode = f32) {
  await writeFile(join(folder, "config.json"), hfConfigText(config, { bos: 0, eos: 1 }));
  const sources = [...weights].flatMap(([name, tensor]) => encode(name, tensor));
  await writeSafetensors(nodeFiles, join(folder, "model.safetensors"), sources);
}

/** Values by parameter, without MTP layers, in f64. */
async function loaded(config: ModelConfig): Promise<Map<string, number[]>> {
  using scope = Scope.root(createReferenceBackend(), { dtype: "f64" });
  const parameters = allocateParameters(scope, { ...config, nMtpLayers: 0 });
  const reader = await openSafetensors(folder);
  try {
    await loadWeights(config, parameters, reader, folder);
  } finally {
    await reader.close();
  }
  return new Map([...parameters].map(({ name, value }) => [name, Array.from(valuesOf(value))]));
}

/** As generation takes them. */
async function stored(config: ModelConfig): Promise<void> {
  using scope = Scope.root(createReferenceBackend());
  await openWeights(scope, folder, config);
}

describe("weights load", () => {
  const config = tiny({ n_mtp_layers: 0 });
  const weights = drawWeights(config, SEED);

  test("from one file in f32, each under its own name", async () => {
    await write(config, weights);
    const values = await loaded(config);
    expect(values.get("layers.0.attn.wq")).toEqual(
      Array.from(weights.get("model.layers.0.self_attn.q_proj.weight")!.values),
    );
    const third = weights.get("model.layers.1.mlp.experts.3.down_proj.weight")!.values;
    expect(values.get("layers.1.ffn.experts.w2")!.slice(3 * third.length, 4 * third.length)).toEqual(Array.from(third));
  });

  test.each([
    ["bf16", bf16],
    ["f16", f16],
  ] as const)("from %s with the values that are stored", async (_, encode) => {
    const exact = new Map([...weights].map(([name, tensor]) => [name, rounded(tensor)]));
    await write(config, exact);
    const expected = await loaded(config);
    await write(config, exact, encode);
    expect(await loaded(config)).toEqual(expected);
  });

  test("from fused experts as from separate ones", async () => {
    await write(config, weights);
    const expected = await loaded(config);
    const together = fused(weights, config.nRoutedExperts);
    expect([...together.keys()].some((name) => name.includes(".experts.0."))).toBe(false);
    await write(config, together);
    expect(await loaded(config)).toEqual(expected);
  });

  test("from fp8 blocks, partial ones at the edges included, as their values times their scales", async () => {
    const wide = tiny({ n_mtp_layers: 0, dim: 136, inter_dim: 150 });
    const drawn = drawWeights(wide, SEED);
    await write(wide, drawn, fp8);
    const values = await loaded(wide);
    const name = "model.layers.0.mlp.gate_proj.weight";
    const { weight, scales } = encodeFp8Rows(drawn.get(name)!.values, 136, null);
    expect(scales).toHaveLength(4);
    const expected = new Float32Array(150 * 136);
    decodeFp8Rows(weight, scales, 136, 0, expected);
    expect(values.get("layers.0.ffn.w1")).toEqual(Array.from(expected));
  });

  test("from fp8 blocks that span two fused experts", async () => {
    const odd = tiny({ n_mtp_layers: 0, moe_inter_dim: 144 });
    const drawn = drawWeights(odd, SEED);
    await write(odd, fused(drawn, odd.nRoutedExperts), fusedFp8);
    const values = await loaded(odd);
    const gateUp = fused(drawn, odd.nRoutedExperts).get("model.layers.1.mlp.experts.gate_up_proj")!;
    const [, rows, columns] = gateUp.shape as [number, number, number];
    const second = decodedFp8(gateUp.values.subarray(rows * columns, 2 * rows * columns), columns);
    const half = second.length / 2;
    const of = (name: string): number[] => values.get(`layers.1.ffn.experts.${name}`)!.slice(half, 2 * half);
    expect(of("w1")).toEqual(Array.from(second.subarray(0, half)));
    expect(of("w3")).toEqual(Array.from(second.subarray(half)));
  });

  test("from signed bytes with a scale for each row, or for each group of columns", async () => {
    const name = "model.layers.0.mlp.gate_proj.weight";
    const drawn = weights.get(name)!;
    const [rows, columns] = drawn.shape as [number, number];
    for (const groups of [1, 4]) {
      const { weight, scales } = encodeInt8Rows(drawn.values, columns / groups);
      await write(config, weights, (key, one) =>
        key === name
          ? [
              source(key, "I8", one.shape, new Uint8Array(weight.buffer)),
              source(`${key}_scale`, "F32", [rows, groups], bytesOf(scales)),
            ]
          : f32(key, one),
      );
      const expected = new Float32Array(rows * columns);
      decodeInt8Rows(new Uint8Array(weight.buffer), scales, expected);
      expect((await loaded(config)).get("layers.0.ffn.w1")).toEqual(Array.from(expected));
    }
  });

  test("from shards that an index names", async () => {
    await write(config, weights);
    const expected = await loaded(config);
    await rm(join(folder, "model.safetensors"));
    await writeShards();
    expect(await loaded(config)).toEqual(expected);
  });

  test("without the tables of rotary angles that old files hold", async () => {
    await write(config, weights);
    const expected = await loaded(config);
    const table = { shape: [4], values: new Float32Array(4) };
    await write(config, new Map([...weights, ["model.layers.0.self_attn.rotary_emb.inv_freq", table]]));
    expect(await loaded(config)).toEqual(expected);
  });

  /** Odd names in one shard, even ones in the other. */
  async function writeShards(): Promise<void> {
    const names = [...weights.keys()];
    const shardOf = (i: number): string => `model-0000${(i % 2) + 1}-of-00002.safetensors`;
    for (const shard of [0, 1]) {
      const own = names.filter((_, i) => i % 2 === shard);
      const sources = own.flatMap((name) => f32(name, weights.get(name)!));
      await writeSafetensors(nodeFiles, join(folder, shardOf(shard)), sources);
    }
    const index = { metadata: {}, weight_map: Object.fromEntries(names.map((name, i) => [name, shardOf(i)])) };
    await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
  }

  test("not when a shard is gone, and the message names it", async () => {
    await writeShards();
    await rm(join(folder, "model-00002-of-00002.safetensors"));
    await expect(loaded(config)).rejects.toThrow(/model-00002-of-00002\.safetensors: must/);
  });
});

describe("an MTP layer", () => {
  const config = tiny();
  const weights = drawWeights(config, SEED);
  const without = new Map([...weights].filter(([name]) => !name.startsWith("model.layers.2.")));

  test("is passed over for generation, whether or not the folder holds it", async () => {
    await write(config, weights);
    const expected = await loaded(config);
    expect(expected.has("layers.1.attn.wq") && !expected.has("layers.2.attn.wq")).toBe(true);
    await write(config, without);
    expect(await loaded(config)).toEqual(expected);
  });
});

describe.each([
  ["as parameters", loaded],
  ["as it is stored", stored],
])("a folder read %s is refused", (_, read) => {
  const config = tiny({ n_mtp_layers: 0 });
  const weights = drawWeights(config, SEED);
  const name = "model.layers.1.self_attn.o_proj.weight";
  const tensor = weights.get(name)!;
  const cure = "check that config.json belongs to these weights";

  test("when a tensor is missing", async () => {
    await write(config, new Map([...weights].filter(([key]) => key !== name)));
    await expect(read(config)).rejects.toThrow(`${folder}: must hold ${name}, which is missing; ${cure}`);
  });

  test("when a tensor is not the model's", async () => {
    await write(config, new Map([...weights, ["model.layers.7.self_attn.o_proj.weight", tensor]]));
    const got = '"model.layers.7.self_attn.o_proj.weight"';
    await expect(read(config)).rejects.toThrow(`${folder}: must hold only tensors of its model, got ${got}; ${cure}`);
  });

  test("when a tensor has another shape", async () => {
    const turned = { shape: tensor.shape.toReversed(), values: tensor.values };
    await write(config, new Map([...weights, [name, turned]]));
    const rule = `${name} must have shape [32, 16], got [16, 32]`;
    await expect(read(config)).rejects.toThrow(`${folder}: ${rule}; ${cure}`);
  });

  test("when fused experts have another shape", async () => {
    const together = fused(weights, config.nRoutedExperts);
    const key = "model.layers.1.mlp.experts.down_proj";
    const { shape, values } = together.get(key)!;
    await write(config, together.set(key, { shape: [shape[0]!, shape[2]!, shape[1]!], values }));
    await expect(read(config)).rejects.toThrow(`${key} must have shape [8, 32, 20], got [8, 20, 32]; ${cure}`);
  });

  test("when a tensor is stored in a type that does not load", async () => {
    const bytes = new Uint8Array(tensor.values.length);
    await write(config, weights, (key, one) =>
      key === name ? [source(key, "F8_E5M2", one.shape, bytes)] : f32(key, one),
    );
    const rule = 'must be stored in a type that loads, got "F8_E5M2"; available: F32, F16, BF16, F8_E4M3, I8';
    await expect(read(config)).rejects.toThrow(`${name}: ${rule}`);
  });

  test("when fp8 weights have no scales", async () => {
    const weight = new Uint8Array(tensor.values.length);
    await write(config, weights, (key, one) =>
      key === name ? [source(key, "F8_E4M3", one.shape, weight)] : f32(key, one),
    );
    await expect(read(config)).rejects.toThrow(`must hold ${name}_scale_inv as F32 [1, 1], got "none"`);
  });

  test("when config.json says another width than the tensors have", async () => {
    await write(config, weights);
    const other = tiny({ n_mtp_layers: 0, dim: 48 });
    await expect(read(other)).rejects.toThrow(/embed_tokens\.weight must have shape \[40, 48\], got \[40, 32\]/);
  });

  test("when the file is cut off", async () => {
    await write(config, weights);
    await truncate(join(folder, "model.safetensors"), 20_000);
    await expect(read(config)).rejects.toThrow(/model\.safetensors.*must/);
  });
});

test("parameters of a model that does not run here are refused with a list of those that do", () => {
  using scope = Scope.root(createReferenceBackend());
  const sparse = resolveConfig("deepseek-v3.2").model;
  const rule = 'model: must be one that runs here, got "the lightning indexer of V3.2"; available: DeepSeek LLM';
  expect(() => allocateParameters(scope, sparse)).toThrow(rule);
  const compressed = resolveConfig("deepseek-v4-flash").model;
  expect(() => allocateParameters(scope, compressed)).toThrow('got "attention csa of V4"');
});
