/**
 * Models in every architecture that runs against Hugging Face transformers: logits, greedy tokens through the engine, every
 * gradient. See README.md here.
 */

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { blueprint, checkpointNames } from "../../src/blueprint/index.ts";
import { fromHfConfig, resolveConfig, type ModelConfig, type ResolvedConfig } from "../../src/config/index.ts";
import { openSafetensors } from "../../src/formats/node.ts";
import type { TensorReader } from "../../src/formats/index.ts";
import { Engine, type Piece } from "../../src/infer/index.ts";
import { createReferenceBackend } from "../../src/kernels/index.ts";
import { DeepSeekModel, allocateParameters, loadWeights, ropeTable, type ParameterSet, type TrainingBatch } from "../../src/model/index.ts";
import { Scope, Tape, sizeOf, type Tensor } from "../../src/tensor/index.ts";
import { testBackends } from "../helpers/backends.ts";
import { drawWeights, readerOf } from "../helpers/drawn-weights.ts";
import { NO_FAULTS, type Fault } from "../reference-model/faults.ts";
import { referenceForward } from "../reference-model/model.ts";

const folder = join(import.meta.dirname, "checkpoints");
const NAMES = readdirSync(folder).map((file) => file.replace(".safetensors", ""));

/** Largest error of a logit over the range of all logits; of a gradient in relative L2. */
const TOLERANCE = { logits: 2e-5, gradient: 1e-4 };
/** Gradients smaller than this share of the largest gradient norm are compared with it instead. */
const GRADIENT_FLOOR = 1e-7;

interface Golden {
  readonly settings: ResolvedConfig;
  readonly config: ModelConfig;
  readonly seed: number;
  /** Tokens of the prompt; the others are what the library writes behind it. */
  readonly prompt: number;
  readonly ids: number[];
  readonly targets: number[];
  /** [N · V] */
  readonly logits: Float32Array;
  /** By checkpoint name. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
}

const opened = new Map<string, Promise<Golden>>();

function open(name: string): Promise<Golden> {
  const golden = opened.get(name) ?? readGolden(join(folder, `${name}.safetensors`));
  opened.set(name, golden);
  return golden;
}

async function readGolden(path: string): Promise<Golden> {
  const file = await openSafetensors(path);
  const settings = resolveConfig({ model: fromHfConfig(file.metadata.config!) });
  const { seed, prompt } = JSON.parse(file.metadata.facts!) as { seed: number; prompt: number };
  const bytes = async (key: string) => (await file.read(key)).slice().buffer;
  const ints = async (key: string) => Array.from(new Int32Array(await bytes(key)));
  const gradients = await readGradients(file);
  const golden = {
    ...{ settings, config: settings.model, seed, prompt, gradients },
    ids: await ints("input_ids"),
    targets: await ints("targets"),
    logits: new Float32Array(await bytes("logits")),
  };
  await file.close();
  return golden;
}

async function readGradients(file: TensorReader): Promise<Map<string, Float32Array>> {
  const gradients = new Map<string, Float32Array>();
  for (const key of file.tensors.keys()) {
    if (!key.startsWith("grad.")) continue;
    gradients.set(key.slice("grad.".length), new Float32Array((await file.read(key)).slice().buffer));
  }
  return gradients;
}

async function load(scope: Scope, { config, seed }: Golden): Promise<ParameterSet> {
  const parameters = allocateParameters(scope, config);
  await loadWeights(config, parameters, readerOf(drawWeights(config, seed)), "drawn");
  return parameters;
}

function batchOf(scope: Scope, { config, ids, targets }: Golden): TrainingBatch {
  const ints = (values: readonly number[]): Tensor => scope.from(values, [values.length], "i32");
  const table = scope.from(ropeTable(config, ids.length), [ids.length, config.qkRopeHeadDim]);
  return {
    ...{ tokens: ints(ids), targets: ints(targets), mtp: [] },
    ...{ positions: ints(ids.map((_, i) => i)), seqStarts: ints([0, ids.length]), ropeTable: table },
  };
}

function norm(values: Iterable<number>): number {
  return Math.sqrt(Array.from(values).reduce((sum, value) => sum + value * value, 0));
}

function argmax(values: Float32Array): number {
  return values.indexOf(Math.max(...values));
}

/** In parts of the range of `expected`. */
function logitsError(found: ArrayLike<number>, expected: Float32Array): number {
  expect(found.length).toBe(expected.length);
  const range = Math.max(...expected) - Math.min(...expected);
  return Math.max(...expected.map((value, i) => Math.abs(value - found[i]!))) / range;
}

/** Everything the engine writes behind the prompt, greedily. */
async function writtenBy(golden: Golden, create: (typeof BACKENDS)[number]["create"]): Promise<number[]> {
  const { settings, ids, prompt } = golden;
  const written: number[] = [];
  const codec = {
    bosId: ids[0]!,
    eosId: -1,
    encode: () => ids.slice(0, prompt),
    createDecoder: () => ({ push: (id: number) => (written.push(id), ""), flush: () => "" }),
  };
  const backend = create();
  using engine = await Engine.open({
    ...{ backend, settings, codec, now: () => 0 },
    openWeights: (scope) => load(scope, golden),
  });
  const generation = { ...settings.generation, temperature: 0, maxTokens: ids.length - prompt };
  const pieces: Piece[] = [];
  for await (const piece of engine.generate("", generation)) pieces.push(piece);
  expect(pieces.at(-1)?.end?.reason).toBe("length");
  return written;
}

const BACKENDS = testBackends();

describe.each(BACKENDS)("on the $label backend", ({ create }) => {
  describe.each(NAMES)("%s", (name) => {
    test("logits and the likeliest tokens are those of the library", async () => {
      using scope = Scope.root(create());
      const golden = await open(name);
      const { config, logits: expected, ids } = golden;
      const batch = batchOf(scope, golden);
      const model = new DeepSeekModel(config, await load(scope, golden));
      const logits = (await model.logits(scope, batch.tokens, batch).read()) as Float32Array;
      expect(logitsError(logits, expected)).toBeLessThan(TOLERANCE.logits);
      const likeliest = (all: Float32Array): number[] =>
        ids.map((_, i) => argmax(all.subarray(i * config.vocabSize, (i + 1) * config.vocabSize)));
      expect(likeliest(logits)).toEqual(likeliest(expected));
    });

    test("the engine writes the library's 64 greedy tokens", async () => {
      const golden = await open(name);
      const expected = golden.ids.slice(golden.prompt);
      expect(expected).toHaveLength(64);
      expect(await writtenBy(golden, create)).toEqual(expected);
    });

    test("every parameter's gradient is that of the library", async () => {
      using scope = Scope.root(create());
      const golden = await open(name);
      const parameters = await load(scope, golden);
      for (const parameter of parameters.trainable) parameter.allocateGrad(scope);
      {
        using tape = new Tape();
        using inner = scope.with({ tape });
        const model = new DeepSeekModel(golden.config, parameters);
        const { main } = model.losses(inner, batchOf(inner, golden), { main: 1 / golden.ids.length, mtp: [] });
        tape.backward(inner, [main]);
      }
      const largest = Math.max(...[...golden.gradients.values()].map(norm));
      const entries = checkpointNames(blueprint(golden.config)).filter(
        ({ parameter }) => parameters.get(parameter).trainable,
      );
      expect(entries.map((entry) => entry.name).toSorted()).toEqual([...golden.gradients.keys()].toSorted());
      const errors = entries.map(({ name: key, parameter, expert = 0, shape }) => {
        const grad = parameters.get(parameter).grad!.view(expert * sizeOf(shape), shape);
        const values = new Float32Array(grad.readBytes().slice().buffer);
        const truth = golden.gradients.get(key)!;
        const difference = norm(truth.map((value, i) => value - values[i]!));
        return { key, error: difference / Math.max(norm(truth), GRADIENT_FLOOR * largest) };
      });
      expect(errors.filter(({ error }) => !(error < TOLERANCE.gradient))).toEqual([]);
    });
  });
});

/** Error of the plain float64 model, with rules broken, against a golden. */
async function referenceError(name: string, change: Partial<ModelConfig>, fault?: Fault): Promise<number> {
  using scope = Scope.root(createReferenceBackend());
  const golden = await open(name);
  const { ids, targets, config, logits } = golden;
  const parameters = await load(scope, golden);
  const batch = { tokens: ids, targets, positions: ids.map((_, i) => i), seqStarts: [0, ids.length], mtp: [] };
  const none = { segments: [0, ids.length], alpha: 0 };
  const faults = fault === undefined ? NO_FAULTS : new Set([fault]);
  const found = referenceForward({ ...config, ...change }, parameters, batch, none, faults);
  return logitsError(found.logits.flat(), logits);
}

test.each(NAMES)("the plain float64 model gives the library's logits of %s", async (name) => {
  expect(await referenceError(name, {})).toBeLessThan(TOLERANCE.logits);
});

/** What must never pass: the rule, a golden that has it, and how it is broken. */
const MUTATIONS: [title: string, golden: string, change: Partial<ModelConfig>, fault?: Fault][] = [
  ["no mscale² in V2", "v2_greedy", { mscale: 0, mscaleAllDim: 0 }],
  ["no mscale² in V3", "v3_qlora_groups", { mscale: 0, mscaleAllDim: 0 }],
  ["half-split rope in V2", "v2_odd", { ropeInterleave: false }],
  ["interleaved rope where pairs are halves", "v3_qdirect_half", { ropeInterleave: true }],
  ["interleaved rope in LLaMA", "llama_gqa", { ropeInterleave: true }],
  ["biased scores as weights", "v3_odd", {}, "biased weights"],
  ["mask 0 instead of -inf", "v3_qlora_groups", {}, "mask 0"],
  ["groups by their sum in V2", "v2_group_limited", {}, "other group rule"],
  ["groups by their maximum in V3", "v3_qlora_groups", {}, "other group rule"],
  ["V2 normalised", "v2_greedy", { normTopkProb: true }],
  ["DeepSeekMoE normalised", "deepseek_mha", { normTopkProb: true }],
  ["no route scale", "v3_qdirect_half", { routeScale: 1 }],
  ["the kv norm over latent and rope", "v2_odd", {}, "wide kv norm"],
  ["eps 1e-5", "v3_odd", { rmsNormEps: 1e-5 }],
];

test.each(MUTATIONS)("a golden notices %s", async (_, name, change, fault) => {
  expect(await referenceError(name, change, fault)).toBeGreaterThan(2 * TOLERANCE.logits);
});
