/** The recorded decode step against the same step run call by call. */

import { describe, expect, test } from "vitest";
import { testBackends } from "../../test/helpers/backends.ts";
import { randomModel, randomTokens } from "../../test/helpers/random-model.ts";
import { resolveConfig } from "../config/index.ts";
import { InternalError } from "../core/errors.ts";
import { createReferenceBackend, type Backend } from "../kernels/index.ts";
import { ropeTable, type DeepSeekModel } from "../model/index.ts";
import { Scope, type Compute, type Tensor } from "../tensor/index.ts";
import { DecodeStep, type DecodeRow } from "./decode-step.ts";
import { BLOCK_SIZE, KvCache, type CachedSequence } from "./kv-cache.ts";

const config = resolveConfig("tiny", { vocab_size: 64, dim: 16, inter_dim: 24, moe_inter_dim: 8 }).model;
const TOKENS = BLOCK_SIZE + 12;

/** A model with a cache of its own, in which sequences are open. */
interface Side {
  readonly scope: Scope;
  readonly model: DeepSeekModel;
  readonly cache: KvCache;
  readonly ropeTable: Tensor;
  readonly sequences: readonly CachedSequence[];
}

function createSide(scope: Scope, sequences: number): Side {
  const cache = new KvCache(scope, config);
  const table = scope.from(ropeTable(config, TOKENS), [TOKENS, config.qkRopeHeadDim]);
  const open = Array.from({ length: sequences }, () => cache.open(TOKENS));
  return { scope, model: randomModel(scope, config, 3), cache, ropeTable: table, sequences: open };
}

function createStep({ scope, model, cache, ropeTable, sequences }: Side): DecodeStep {
  const { paged, blocks } = cache;
  return new DecodeStep(scope, { model, sequences: sequences.length, cache: paged, maxBlocks: blocks, ropeTable });
}

function nextRows({ cache, sequences }: Side, ids: readonly number[]): DecodeRow[] {
  return sequences.map((sequence, b) => {
    const position = sequence.length;
    return { id: ids[b]!, position, slot: cache.extend(sequence, 1)[0]!, blocks: sequence.blocks };
  });
}

/** The same step, each call on its own, with inputs of its own. */
async function eager({ scope, model, cache, ropeTable }: Side, rows: readonly DecodeRow[]): Promise<Float32Array> {
  using inner = scope.child();
  const ints = (values: readonly number[]): Tensor => inner.from(values, [values.length], "i32");
  const positions = ints(rows.map(({ position }) => position));
  const width = rows[0]!.blocks.length;
  const blockTable = ints(rows.flatMap(({ blocks }) => blocks)).reshape([rows.length, width]);
  const slots = ints(rows.map(({ slot }) => slot));
  const seqLens = ints(rows.map(({ position }) => position + 1));
  const at = { positions, seqStarts: ints(rows.map((_, b) => b).concat(rows.length)), ropeTable };
  const paged = { ...cache.paged, slots, seqLens, blockTable };
  return (await model.decode(inner, ints(rows.map(({ id }) => id)), at, paged).read()) as Float32Array;
}

/** Positions at which a recorded and an eager step give logits of other bits. */
async function differences(backend: Backend, compute: Compute, sequences: number): Promise<number[]> {
  using scope = Scope.root(backend, { compute });
  const [recorded, plain] = [createSide(scope, sequences), createSide(scope, sequences)];
  using step = createStep(recorded);
  const ids = randomTokens(config, TOKENS * sequences);
  const different: number[] = [];
  for (let i = 0; i < TOKENS; i++) {
    const next = ids.slice(i * sequences, (i + 1) * sequences);
    const logits = await step.run(nextRows(recorded, next));
    const wanted = await eager(plain, nextRows(plain, next));
    expect(logits).toHaveLength(sequences * config.vocabSize);
    if (logits.some((logit, at) => !Object.is(logit, wanted[at]))) different.push(i);
  }
  return different;
}

describe.each(testBackends())("on the $label backend", ({ create }) => {
  test.each([
    ["f32", 1],
    ["bf16", 1],
    ["f32", 3],
  ] as const)(
    "replayed logits have the bits of eager ones, across a block, in %s for %i sequences",
    async (compute, n) => {
      expect(await differences(create(), compute, n)).toEqual([]);
    },
  );

  test("a step whose weights are gone is refused", async () => {
    const backend = create();
    using scope = Scope.root(backend);
    const side = createSide(scope, 1);
    using step = createStep(side);
    await step.run(nextRows(side, [5]));
    scope.drop(side.model.parameters.get("norm").value);
    await expect(step.run(nextRows(side, [6]))).rejects.toThrow(InternalError);
  });
});

test("a step gives back all memory that it took, and runs nothing when it is recorded", async () => {
  const backend = createReferenceBackend();
  using scope = Scope.root(backend);
  const side = createSide(scope, 1);
  const before = backend.stats();
  let lists = 0;
  const run = backend.run.bind(backend);
  backend.run = (words) => {
    lists++;
    run(words);
  };
  const step = createStep(side);
  expect(lists).toBe(0);
  await step.run(nextRows(side, [5]));
  const during = backend.stats();
  await step.run(nextRows(side, [6]));
  expect(lists).toBe(2);
  expect(backend.stats()).toMatchObject({ liveBytes: during.liveBytes, liveBuffers: during.liveBuffers });
  step[Symbol.dispose]();
  expect(backend.stats()).toMatchObject({ liveBytes: before.liveBytes, liveBuffers: before.liveBuffers });
});
