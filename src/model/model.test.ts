/** The whole model on `tiny`: masks, the cache, every loss and gradient against plain float64, and memory. */

import { describe, expect, test } from "vitest";
import { testBackends } from "../../test/helpers/backends.ts";
import {
  packDocuments,
  randomModel,
  randomTokens,
  uploadPacked,
  valuesOf,
  type PackedDocuments,
} from "../../test/helpers/random-model.ts";
import { referenceForward } from "../../test/reference-model/model.ts";
import { resolveConfig, type ConfigInput, type ModelConfig } from "../config/index.ts";
import { Rng } from "../core/rng.ts";
import { KvCache, type CachedSequence } from "../infer/kv-cache.ts";
import { createReferenceBackend } from "../kernels/index.ts";
import { checkGradients } from "../tensor/gradient-check.ts";
import { Scope, Tape, type Parameter, type Tensor } from "../tensor/index.ts";
import type { DeepSeekModel } from "./index.ts";

const NO_ROUTING = { balance: null };
const ALPHA = 0.5;
/** Largest error over the range of the expected values. In f32 as for the goldens; float64 rounds at 1e-16. */
const TOLERANCE = { f32: 1e-5, f64: 1e-10 };

function tiny(settings: ConfigInput = {}): ModelConfig {
  return resolveConfig("tiny", { vocab_size: 48, ...settings }).model;
}

const SOFTMAX = { score_func: "softmax", topk_method: "greedy", norm_topk_prob: false, router_bias_speed: 0 };
const GREEDY = { ...SOFTMAX, n_expert_groups: 1, n_limited_groups: 1 };
const GROUP_LIMITED = { ...SOFTMAX, topk_method: "group_limited_greedy", route_scale: 4 };
/** Two queries on each head of keys, whole heads rotated by halves. */
const GROUPED = {
  ...{ attention: "gqa", n_heads: 4, n_kv_heads: 2, head_dim: 8 },
  ...{ qk_nope_head_dim: 0, qk_rope_head_dim: 8, v_head_dim: 8, rope_interleave: false, n_mtp_layers: 0 },
};
const DENSE = { ...GREEDY, n_dense_layers: 2, n_routed_experts: 0, n_shared_experts: 0, n_activated_experts: 0 };
/** Every branch of the architecture. */
const VARIANTS: [string, ConfigInput][] = [
  ["V3 with 4 expert groups", {}],
  ["V3 without groups", { n_expert_groups: 1, n_limited_groups: 1 }],
  ["no compression of the queries", { q_lora_rank: 0 }],
  ["a tied head", { tie_embeddings: true }],
  ["no shared experts", { n_shared_experts: 0 }],
  ["V2 softmax, greedy, 2 shared experts", { ...GREEDY, n_shared_experts: 2 }],
  ["V2 softmax, group-limited", GROUP_LIMITED],
  ["2 prediction modules behind the norms", { n_mtp_layers: 2, mtp_hidden: "post_norm" }],
  ["2 prediction modules before the norms", { n_mtp_layers: 2, mtp_hidden: "pre_norm" }],
  ["1 prediction module before the norm", { n_mtp_layers: 1, mtp_hidden: "pre_norm" }],
  ["no YaRN and no prediction module", { rope_factor: 1, n_mtp_layers: 0 }],
  ["grouped-query attention in dense layers", { ...DENSE, ...GROUPED, rope_factor: 1 }],
  ["multi-head attention before a mixture", { ...GREEDY, ...GROUPED, n_kv_heads: 4, n_shared_experts: 2 }],
  [
    "softmax weights that are normalised",
    { ...GREEDY, ...GROUPED, norm_topk_prob: true, n_shared_experts: 0, route_scale: 1.5 },
  ],
  ["half-split pairs in latent attention", { rope_interleave: false }],
];

function documentsOf(config: ModelConfig, lengths: readonly number[]): number[][] {
  return lengths.map((length, i) => randomTokens(config, length, i + 1));
}

function largestError(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  const values = Array.from(expected);
  expect(found).toHaveLength(values.length);
  const range = Math.max(...values) - Math.min(...values);
  return Math.max(...values.map((value, i) => Math.abs(value - found[i]!))) / range;
}

function logitsOf(model: DeepSeekModel, scope: Scope, packed: PackedDocuments): Float64Array {
  const batch = uploadPacked(scope, model.config, packed);
  return valuesOf(model.logits(scope, batch.tokens, batch, NO_ROUTING));
}

describe.each(testBackends())("on the $label backend", ({ create }) => {
  const config = tiny();
  const rows = (logits: Float64Array, from: number, count: number): Float64Array =>
    logits.subarray(from * config.vocabSize, (from + count) * config.vocabSize);

  test("a document has the same logits alone and packed beside others", () => {
    using scope = Scope.root(create());
    const model = randomModel(scope, config);
    const documents = documentsOf(config, [5, 1, 33, 70]);
    const packed = packDocuments(documents);
    const together = logitsOf(model, scope, packed);
    for (const [i, document] of documents.entries()) {
      const alone = logitsOf(model, scope, packDocuments([document]));
      expect(largestError(rows(together, packed.seqStarts[i]!, document.length), alone)).toBeLessThan(TOLERANCE.f32);
    }
    const unmasked = logitsOf(model, scope, { ...packed, seqStarts: [0, packed.tokens.length] });
    expect(largestError(unmasked, together)).toBeGreaterThan(0.01);
  });

  test("a later token changes no bit of earlier logits", () => {
    using scope = Scope.root(create());
    const model = randomModel(scope, config);
    const [document] = documentsOf(config, [70]);
    const changed = document!.with(41, (document![41]! + 1) % config.vocabSize);
    const [before, after] = [document!, changed].map((tokens) => logitsOf(model, scope, packDocuments([tokens])));
    expect(rows(after!, 0, 41)).toEqual(rows(before!, 0, 41));
    for (let row = 41; row < 70; row++) expect(rows(after!, row, 1)).not.toEqual(rows(before!, row, 1));
  });

  test.each([16, 0])("absorbed decode equals the naive form in f32, q_lora_rank %i", (rank) => {
    using scope = Scope.root(create());
    expect(decodeError(scope, tiny({ q_lora_rank: rank }))).toBeLessThan(TOLERANCE.f32);
  });

  test.each([1, 2, 4])("decode from cached keys equals the whole text in f32, 4 heads on %i", (kvHeads) => {
    using scope = Scope.root(create());
    expect(decodeError(scope, tiny({ ...GREEDY, ...GROUPED, n_kv_heads: kvHeads }))).toBeLessThan(TOLERANCE.f32);
  });
});

test.each([16, 0])("absorbed decode equals the naive form in float64, q_lora_rank %i", (rank) => {
  using scope = Scope.root(createReferenceBackend(), { dtype: "f64" });
  expect(decodeError(scope, tiny({ q_lora_rank: rank }))).toBeLessThan(TOLERANCE.f64);
});

test.each([1, 2, 4])("decode from cached keys equals the whole text in float64, 4 heads on %i", (kvHeads) => {
  using scope = Scope.root(createReferenceBackend(), { dtype: "f64" });
  expect(decodeError(scope, tiny({ ...DENSE, ...GROUPED, n_kv_heads: kvHeads }))).toBeLessThan(TOLERANCE.f64);
});

interface Reader {
  readonly tokens: readonly number[];
  /** Tokens that are read at once before decoding. */
  readonly prompt: number;
  readonly sequence: CachedSequence;
  /** [T · V] of the whole text without a cache. */
  readonly naive: Float64Array;
}

/**
 * Two texts with prompts of 60 and 1 tokens, then decoded together, their blocks alternating in the pool; both cross
 * block boundaries while decoding. The largest error of any logits against the naive form of the whole text.
 */
function decodeError(scope: Scope, config: ModelConfig): number {
  const model = randomModel(scope, config);
  const cache = new KvCache(scope, config);
  const documents = documentsOf(config, [60 + 75, 1 + 75]);
  const readers = documents.map((tokens, i): Reader => {
    const naive = logitsOf(model, scope, packDocuments([tokens]));
    return { tokens, prompt: [60, 1][i]!, sequence: cache.open(tokens.length), naive };
  });
  const { ropeTable } = uploadPacked(scope, config, packDocuments(documents));
  const ints = (values: ArrayLike<number>): Tensor => scope.from(Int32Array.from(values), [values.length], "i32");
  const errorOf = ({ naive, sequence }: Reader, logits: Float64Array): number => {
    const last = naive.subarray((sequence.length - 1) * config.vocabSize, sequence.length * config.vocabSize);
    return largestError(logits, last);
  };
  const errors = readers.map((reader) => {
    const prompt = reader.tokens.slice(0, reader.prompt);
    const at = { positions: ints(prompt.map((_, i) => i)), seqStarts: ints([0, prompt.length]), ropeTable };
    const slots = ints(cache.extend(reader.sequence, prompt.length));
    return errorOf(reader, valuesOf(model.prefill(scope, ints(prompt), at, { ...cache.paged, slots })));
  });
  for (let step = 0; step < 75; step++) {
    const tokens = readers.map(({ tokens, sequence }) => tokens[sequence.length]!);
    const positions = readers.map(({ sequence }) => sequence.length);
    const slots = ints(readers.flatMap(({ sequence }) => [...cache.extend(sequence, 1)]));
    const maxBlocks = Math.max(...readers.map(({ sequence }) => sequence.blocks.length));
    const table = readers.flatMap(({ sequence: { blocks } }) => [
      ...blocks,
      ...Array<number>(maxBlocks - blocks.length).fill(-1),
    ]);
    const blockTable = scope.from(table, [2, maxBlocks], "i32");
    const seqLens = ints(readers.map(({ sequence }) => sequence.length));
    const at = { positions: ints(positions), seqStarts: ints([0, 1, 2]), ropeTable };
    const logits = valuesOf(model.decode(scope, ints(tokens), at, { ...cache.paged, slots, blockTable, seqLens }));
    for (const [b, reader] of readers.entries()) {
      errors.push(errorOf(reader, logits.subarray(b * config.vocabSize, (b + 1) * config.vocabSize)));
    }
  }
  expect(readers.map(({ sequence }) => sequence.blocks)).toEqual([
    [0, 2, 4],
    [1, 3],
  ]);
  return Math.max(...errors);
}

interface WholeLoss {
  readonly roots: Tensor[];
  readonly main: Float64Array;
  readonly mtp: Float64Array[];
  readonly balance: number[];
  /** The sum of all, as weighted. */
  readonly value: number;
}

/** Two windows of the same length. */
function segmentsOf({ tokens }: PackedDocuments): number[] {
  return [0, tokens.length / 2, tokens.length];
}

/** Main, MTP and balance losses. */
function wholeLoss(model: DeepSeekModel, scope: Scope, packed: PackedDocuments): WholeLoss {
  const batch = uploadPacked(scope, model.config, packed);
  const balance: Tensor[] = [];
  const segments = scope.from(segmentsOf(packed), [3], "i32");
  const onLoss = (loss: Tensor): void => void balance.push(scope.own(loss));
  const scales = { main: 1, mtp: batch.mtp.map(() => model.config.mtpLossWeight) };
  const losses = model.losses(scope, batch, scales, { balance: { segments, alpha: ALPHA, onLoss } });
  const main = valuesOf(losses.main);
  const mtp = losses.mtp.map(valuesOf);
  const balanceValues = balance.map((loss) => valuesOf(loss)[0]!);
  return {
    roots: [losses.main, ...losses.mtp, ...balance],
    main,
    mtp,
    balance: balanceValues,
    value: sum(main) + model.config.mtpLossWeight * sum(mtp.map(sum)) + sum(balanceValues),
  };
}

function sum(values: Iterable<number>): number {
  return Array.from(values).reduce((a, b) => a + b, 0);
}

function dot(a: Float64Array, b: Float64Array): number {
  return sum(a.map((value, i) => value * b[i]!));
}

/** `count` distinct random indices of a parameter's values, all of them when it has fewer. */
function sampleOf(count: number): (parameter: Parameter) => Iterable<number> {
  return ({ name, value }) => {
    const rng = new Rng(3, name);
    const picked = new Set<number>();
    while (picked.size < Math.min(count, value.size)) picked.add(Math.floor(rng.uniform() * value.size));
    return picked;
  };
}

describe.each(VARIANTS)("with %s", (_, settings) => {
  const config = tiny(settings);
  const packed = packDocuments(documentsOf(config, [9, 2, 13]), config.nMtpLayers);

  test("logits and all losses are those of the plain float64 model", () => {
    using scope = Scope.root(createReferenceBackend(), { dtype: "f64" });
    const model = randomModel(scope, config);
    const balanceOver = { segments: segmentsOf(packed), alpha: ALPHA };
    const expected = referenceForward(config, model.parameters, packed, balanceOver);
    const { main, mtp, balance } = wholeLoss(model, scope, packed);
    expect(largestError(logitsOf(model, scope, packed), expected.logits.flat())).toBeLessThan(1e-12);
    expect(Math.abs(sum(main) - sum(expected.main))).toBeLessThan(1e-10);
    expect(largestError(main, expected.main)).toBeLessThan(1e-10);
    expect(mtp).toHaveLength(config.nMtpLayers);
    for (const [k, losses] of mtp.entries()) expect(largestError(losses, expected.mtp[k]!)).toBeLessThan(1e-10);
    expect(balance).toHaveLength(model.mixtures);
    for (const [i, loss] of balance.entries()) expect(Math.abs(loss - expected.balance[i]!)).toBeLessThan(1e-10);
  });

  test("the gradient of main, MTP and balance loss agrees with a central difference and reaches every parameter", () => {
    using scope = Scope.root(createReferenceBackend(), { dtype: "f64" });
    const model = randomModel(scope, config);
    const parameters = model.parameters.trainable;
    for (const parameter of parameters) parameter.allocateGrad(scope);
    {
      using tape = new Tape();
      using inner = scope.with({ tape });
      tape.backward(inner, wholeLoss(model, inner, packed).roots);
    }
    for (const { name, grad } of parameters) {
      expect(Math.max(...valuesOf(grad!).map(Math.abs)), name).toBeGreaterThan(1e-6);
    }
    const directions = parameters.map(({ name, value }) => {
      const rng = new Rng(5, name);
      return Float64Array.from({ length: value.size }, () => 2 * rng.uniform() - 1);
    });
    const origin = parameters.map(({ value }) => valuesOf(value));
    const lossAt = (step: number): number => {
      for (const [i, { value }] of parameters.entries()) {
        value.write(origin[i]!.map((start, j) => start + step * directions[i]![j]!));
      }
      using inner = scope.child();
      return wholeLoss(model, inner, packed).value;
    };
    // All values move at once, so the curve along the direction is steep: extrapolated, the error falls with h⁴.
    const slope = (step: number): number => (lossAt(step) - lossAt(-step)) / (2 * step);
    const numeric = (4 * slope(1e-6) - slope(2e-6)) / 3;
    const analytic = sum(parameters.map(({ grad }, i) => dot(valuesOf(grad!), directions[i]!)));
    expect(Math.abs(analytic / numeric - 1)).toBeLessThan(1e-7);
  });
});

test("single values of the gradient of the whole loss, some of every parameter, agree with central differences", () => {
  const backend = createReferenceBackend();
  using scope = Scope.root(backend, { dtype: "f64" });
  const model = randomModel(scope, tiny());
  const packed = packDocuments(documentsOf(model.config, [4, 2, 6]), 1);
  const parameters = model.parameters.trainable;
  const worst = checkGradients(
    backend,
    parameters,
    (inner) => {
      const { roots, value } = wholeLoss(model, inner, packed);
      return { roots, value: () => value };
    },
    // Here 1e-5 leaves 2e-7 of truncation, which falls with h², and 3e-7 leaves 1e-7 of rounding, which rises with 1/h.
    { sample: sampleOf(Math.ceil(150 / parameters.length)), step: 3e-6 },
  );
  expect(worst.error, JSON.stringify(worst)).toBeLessThan(1e-7);
});

test("an expert without tokens has a gradient of exactly 0", () => {
  using scope = Scope.root(createReferenceBackend());
  const config = tiny({ n_mtp_layers: 0 });
  const model = randomModel(scope, config);
  model.parameters.get("layers.1.ffn.gate.bias").value.write(Float32Array.from([-9, 0, 0, 0, 0, 0, 0, 0]));
  for (const parameter of model.parameters.trainable) parameter.allocateGrad(scope);
  using tape = new Tape();
  using inner = scope.with({ tape });
  tape.backward(inner, wholeLoss(model, inner, packDocuments(documentsOf(config, [24]))).roots);
  for (const name of ["w1", "w2", "w3"]) {
    const { grad } = model.parameters.get(`layers.1.ffn.experts.${name}`);
    const values = valuesOf(grad!);
    const size = values.length / config.nRoutedExperts;
    expect(values.subarray(0, size).every((value) => value === 0)).toBe(true);
    expect(values.subarray(size).some((value) => value !== 0)).toBe(true);
  }
});

test("peak memory of a training pass is linear in the sequence length", () => {
  const peakAt = (length: number): number => {
    const backend = createReferenceBackend();
    using scope = Scope.root(backend);
    const config = tiny({ max_seq_len: 512 });
    const model = randomModel(scope, config);
    for (const parameter of model.parameters.trainable) parameter.allocateGrad(scope);
    const packed = packDocuments(documentsOf(config, [length]), 1);
    using tape = new Tape();
    using inner = scope.with({ tape });
    const batch = uploadPacked(inner, config, packed);
    backend.resetPeak();
    const { main, mtp } = model.losses(inner, batch, { main: 1, mtp: [1] });
    tape.backward(inner, [main, ...mtp]);
    return backend.stats().peakBytes;
  };
  const [short, middle, long] = [128, 256, 512].map(peakAt) as [number, number, number];
  expect(long - middle).toBe(2 * (middle - short));
});
