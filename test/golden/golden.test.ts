/** The whole model against Hugging Face transformers: logits, every gradient, ten training steps. See README.md here. */

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { blueprint, checkpointNames } from "../../src/blueprint/index.ts";
import { fromHfConfig, resolveConfig, type ModelConfig } from "../../src/config/index.ts";
import { openSafetensors } from "../../src/formats/node.ts";
import type { TensorReader } from "../../src/formats/index.ts";
import { DeepSeekModel, allocateParameters, loadWeights, ropeTable, type ParameterSet, type TrainingBatch } from "../../src/model/index.ts";
import { AdamW, clipScale } from "../../src/optim/index.ts";
import { Scope, Tape, sizeOf, type Tensor } from "../../src/tensor/index.ts";
import { testBackends } from "../helpers/backends.ts";

const folder = import.meta.dirname;
const FILES = readdirSync(folder).filter((name) => /^deepseek_.*\.safetensors$/.test(name));

/** Largest error of a logit over the range of all logits; of a gradient in relative L2; of a loss in nats. */
const TOLERANCE = { logits: 1e-5, gradient: 1e-5, loss: 1e-5 };
/** Gradients smaller than this share of the largest gradient norm are compared with it instead. */
const GRADIENT_FLOOR = 1e-7;

interface Facts {
  readonly loss: number;
  readonly losses: readonly number[];
  readonly optimizer: { lr: number; betas: [number, number]; eps: number; weight_decay: number; clip_global_norm: number | null };
}

interface Golden {
  readonly file: TensorReader;
  readonly config: ModelConfig;
  readonly facts: Facts;
  readonly scope: Scope;
  readonly parameters: ParameterSet;
  readonly model: DeepSeekModel;
  readonly batch: TrainingBatch;
}

const opened: TensorReader[] = [];
afterEach(async () => {
  for (const file of opened.splice(0)) await file.close();
});

async function open(name: string, scope: Scope): Promise<Golden> {
  const file = await openSafetensors(join(folder, name));
  opened.push(file);
  const config = resolveConfig({ model: fromHfConfig(file.metadata.config!) }).model;
  const parameters = allocateParameters(scope, config);
  const weights = { ...file, tensors: new Map([...file.tensors].filter(([key]) => /^(model|lm_head)\./.test(key))) };
  await loadWeights(config, parameters, weights, name);
  for (const parameter of parameters.trainable) parameter.allocateGrad(scope);
  const model = new DeepSeekModel(config, parameters);
  const facts = JSON.parse(file.metadata.facts!) as Facts;
  return { file, config, facts, scope, parameters, model, batch: await goldenBatch(file, config, scope) };
}

/** Two rows of T tokens; the last of each row predicts nothing. */
async function goldenBatch(file: TensorReader, config: ModelConfig, scope: Scope): Promise<TrainingBatch> {
  const [rows, length] = file.tensors.get("input_ids")!.shape as [number, number];
  const ids = new Int32Array((await file.read("input_ids")).slice().buffer);
  const targets = ids.map((_, i) => (i % length === length - 1 ? -1 : ids[i + 1]!));
  const ints = (values: Int32Array): Tensor => scope.from(values, [values.length], "i32");
  return {
    tokens: ints(ids),
    targets: ints(targets),
    positions: ints(ids.map((_, i) => i % length)),
    seqStarts: ints(Int32Array.from({ length: rows + 1 }, (_, i) => i * length)),
    ropeTable: scope.from(ropeTable(config, length), [length, config.qkRopeHeadDim]),
    mtp: [],
  };
}

/** Fills the gradients and returns the mean loss. */
async function backward({ scope, model, batch, parameters }: Golden): Promise<number> {
  for (const parameter of parameters.trainable) parameter.clearGrad();
  const count = Array.from(await batch.targets.read()).filter((target) => target >= 0).length;
  using tape = new Tape();
  using inner = scope.with({ tape });
  const { main } = model.losses(inner, batch, { main: 1 / count, mtp: [] });
  tape.backward(inner, [main]);
  return Array.from(await main.read()).reduce((sum, loss) => sum + loss, 0) / count;
}

async function floats(file: TensorReader, name: string): Promise<Float32Array> {
  return new Float32Array((await file.read(name)).slice().buffer);
}

function norm(values: Iterable<number>): number {
  return Math.sqrt(Array.from(values).reduce((sum, value) => sum + value * value, 0));
}

describe.each(testBackends())("on the $label backend", ({ create }) => {
  describe.each(FILES)("%s", (name) => {
    test("logits are those of the library", async () => {
      using scope = Scope.root(create());
      const { model, batch, file } = await open(name, scope);
      const logits = await model.logits(scope, batch.tokens, batch).read();
      const expected = await floats(file, "logits");
      const range = Math.max(...expected) - Math.min(...expected);
      const error = Math.max(...expected.map((value, i) => Math.abs(value - logits[i]!)));
      expect(error / range).toBeLessThan(TOLERANCE.logits);
    });

    test("every parameter's gradient is that of the library", async () => {
      using scope = Scope.root(create());
      const golden = await open(name, scope);
      expect(await backward(golden)).toBeCloseTo(golden.facts.loss, 5);
      const { file, parameters, config } = golden;
      const entries = checkpointNames(blueprint(config)).filter(({ parameter }) => parameters.get(parameter).trainable);
      const expected = new Map<string, Float32Array>();
      for (const entry of entries) expected.set(entry.name, await floats(file, `grad.${entry.name}`));
      const largest = Math.max(...[...expected.values()].map(norm));
      const errors = entries.map((entry) => {
        const grad = parameters.get(entry.parameter).grad!.view((entry.expert ?? 0) * sizeOf(entry.shape), entry.shape);
        const values = new Float32Array(grad.readBytes().slice().buffer);
        const truth = expected.get(entry.name)!;
        if (norm(truth) === 0) return { name: entry.name, error: norm(values) === 0 ? 0 : Infinity };
        const difference = norm(truth.map((value, i) => value - values[i]!));
        return { name: entry.name, error: difference / Math.max(norm(truth), GRADIENT_FLOOR * largest) };
      });
      expect(errors.filter(({ error }) => !(error < TOLERANCE.gradient))).toEqual([]);
    });

    test("ten AdamW steps give the library's ten losses", async () => {
      using scope = Scope.root(create());
      const golden = await open(name, scope);
      const { lr, betas, eps, weight_decay: weightDecay, clip_global_norm: clip } = golden.facts.optimizer;
      const { parameters } = golden;
      const adamw = parameters.trainable.map((parameter) => ({ parameter, decay: parameter.shape.length > 1 }));
      const optimizer = new AdamW(scope, adamw, { beta1: betas[0], beta2: betas[1], adamEps: eps, weightDecay });
      for (const [i, expected] of golden.facts.losses.entries()) {
        const loss = await backward(golden);
        expect(Math.abs(loss - expected), `loss of step ${i + 1}`).toBeLessThan(TOLERANCE.loss);
        const grads = parameters.trainable.map(({ grad }) => new Float32Array(grad!.readBytes().slice().buffer));
        const gradNorm = norm(grads.map(norm));
        optimizer.step(scope, { step: i + 1, lr, gradScale: clip === null ? 1 : clipScale(gradNorm, clip) });
      }
    });
  });
});
