/** Hugging Face folders of every architecture, as they are downloaded: no file of ours in them. */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { testBackends } from "../../test/helpers/backends.ts";
import { createByteTokenizer } from "../../test/helpers/byte-tokenizer.ts";
import { collect } from "../../test/helpers/collect.ts";
import { drawnGguf } from "../../test/helpers/drawn-gguf.ts";
import { drawWeights, type DrawnTensor } from "../../test/helpers/drawn-weights.ts";
import { hfConfigText, resolveConfig, type ConfigInput, type ModelConfig } from "../config/index.ts";
import { toBf16Bits } from "../core/dtype.ts";
import { MemoryError } from "../core/errors.ts";
import { writeGguf, writeSafetensors } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import { createReferenceBackend, type Backend } from "../kernels/index.ts";
import type { Engine } from "./index.ts";
import { openEngine } from "./node.ts";

const GROUPED = {
  ...{ attention: "gqa", n_heads: 4, n_kv_heads: 2, head_dim: 8, q_lora_rank: 0, n_mtp_layers: 0 },
  ...{ qk_nope_head_dim: 0, qk_rope_head_dim: 8, v_head_dim: 8, rope_interleave: false, rope_factor: 1 },
};
const SOFTMAX = { score_func: "softmax", norm_topk_prob: false, router_bias_speed: 0 };
const GREEDY = { ...SOFTMAX, topk_method: "greedy", n_expert_groups: 1, n_limited_groups: 1 };
const NO_EXPERTS = { n_dense_layers: 2, n_routed_experts: 0, n_shared_experts: 0, n_activated_experts: 0 };
const MODELS: [type: string, settings: ConfigInput][] = [
  ["llama", { ...GROUPED, ...GREEDY, ...NO_EXPERTS }],
  ["deepseek", { ...GROUPED, ...GREEDY }],
  ["deepseek_v2", { ...SOFTMAX, topk_method: "group_limited_greedy", n_mtp_layers: 0 }],
  ["deepseek_v3", {}],
];

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-folder-"));
});
afterEach(() => rm(folder, { recursive: true }));

type Store = (values: Float32Array) => { dtype: "F32" | "BF16"; bytes: Uint8Array };

const inF32: Store = (values) => ({ dtype: "F32", bytes: new Uint8Array(values.buffer) });
const inBf16: Store = (values) => {
  const bits = Uint16Array.from(values, toBf16Bits);
  return { dtype: "BF16", bytes: new Uint8Array(bits.buffer) };
};

function modelOf(settings: ConfigInput): ModelConfig {
  return resolveConfig("tiny", { vocab_size: 259, ...settings }).model;
}

/** Values that bf16 holds exactly. */
function draw(model: ModelConfig): Map<string, DrawnTensor> {
  const drawn = [...drawWeights(model, 3)];
  return new Map(
    drawn.map(([name, { shape, values }]) => [name, { shape, values: values.map((v) => Math.round(v * 64) / 64) }]),
  );
}

/** Returns the type that config.json gives it. */
async function writeFolder(settings: ConfigInput, store = inF32): Promise<string> {
  const tokenizer = createByteTokenizer();
  const model = modelOf(settings);
  const text = hfConfigText(model, { bos: 0, eos: 1 });
  await writeFile(join(folder, "config.json"), text);
  await writeFile(join(folder, "tokenizer.json"), tokenizer.toJson());
  await writeFile(join(folder, "tokenizer_config.json"), tokenizer.toConfigJson());
  const sources = [...draw(model)].map(([name, { shape, values }]) => {
    const { dtype, bytes } = store(values);
    return { name, dtype, shape, chunks: () => [bytes] };
  });
  await writeSafetensors(nodeFiles, join(folder, "model.safetensors"), sources);
  return (JSON.parse(text) as { model_type: string }).model_type;
}

test.each(MODELS)("a folder of %s opens and continues a prompt", async (type, settings) => {
  expect(await writeFolder(settings)).toBe(type);
  using engine = await openEngine({ folder, backend: createReferenceBackend(), now: () => 0 });
  let tokens = 0;
  for await (const { end } of engine.generate("What is", { ...engine.settings.generation, maxTokens: 5 })) {
    tokens = end?.tokens ?? tokens;
  }
  expect(tokens).toBe(5);
});

async function answer(backend: Backend, path = folder): Promise<string> {
  using engine = await openEngine({ folder: path, backend, now: () => 0 });
  let text = "";
  const generation = { ...engine.settings.generation, temperature: 0, maxTokens: 24 };
  for await (const piece of engine.generate("What is", generation)) text += piece.text;
  return text;
}

describe.each(testBackends())("on the $label backend", ({ create }) => {
  test.each(MODELS)("weights of %s in bf16 give the greedy text of the same values in f32", async (_, settings) => {
    await writeFolder(settings);
    const expected = await answer(create());
    expect(expected).not.toBe("");
    await writeFolder(settings, inBf16);
    expect(await answer(create())).toBe(expected);
  });

  test.each(MODELS)(
    "a .gguf file of %s gives the greedy text of its folder, in F32 and in BF16",
    async (_, settings) => {
      await writeFolder(settings);
      const expected = await answer(create());
      const model = modelOf(settings);
      for (const type of ["F32", "BF16"] as const) {
        const path = join(folder, `${type}.gguf`);
        await writeGguf(nodeFiles, path, drawnGguf(model, draw(model), { splitKvB: true, type }));
        expect(await answer(create(), path), type).toBe(expected);
      }
    },
  );
});

/** What was refused. */
async function refusalOf(work: Promise<unknown>): Promise<MemoryError> {
  const error = await work.catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(MemoryError);
  return error as MemoryError;
}

test("a request above the memory limit is refused before anything is allocated, and takes what the message says", async () => {
  await writeFolder(MODELS[3]![1]);
  const backend = createReferenceBackend();
  const openWith = (memoryLimit: number) => openEngine({ folder, backend, now: () => 0, memoryLimit });
  const { neededBytes: weights } = await refusalOf(openWith(1));
  const generation = { ...resolveConfig("tiny").generation, temperature: 0, maxTokens: 80 };
  const ask = (engine: Engine) => collect(engine.generate("What is the matter with it", generation));
  let needed = 0;
  {
    using engine = await openWith(weights);
    const before = backend.stats();
    const refused = await refusalOf(ask(engine));
    expect(backend.stats()).toEqual(before);
    expect(refused.message).toMatch(
      /with a prompt of \d+ tokens and 80 to write: needs \d+ bytes .* are weights, .* cache/,
    );
    needed = refused.neededBytes;
    await refusalOf(openWith(needed - 1).then((short) => ask(short)));
  }
  using engine = await openWith(needed);
  backend.resetPeak();
  const { liveBytes } = backend.stats();
  expect((await ask(engine)).at(-1)?.end?.tokens).toBe(80);
  const taken = backend.stats().peakBytes - liveBytes;
  // A table of rotations for one block is there from the start.
  expect(taken).toBeLessThanOrEqual(needed - weights);
  expect(taken).toBeGreaterThan(0.95 * (needed - weights));
});

test.each(["deepseek-v3.2", "deepseek-v4-flash"])(
  "%s is refused with a list of what runs, before any weight",
  async (name) => {
    await writeFile(join(folder, "config.json"), hfConfigText(resolveConfig(name).model, { bos: 0, eos: 1 }));
    const opening = openEngine({ folder, backend: createReferenceBackend(), now: () => 0 });
    await expect(opening).rejects.toThrow(
      /model: must be one that runs here, got .* DeepSeek LLM \(model_type llama\), .*deepseek_v3/,
    );
  },
);
