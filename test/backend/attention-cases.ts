/** Cases of attention, its gradients, and the cache of latents. */

import type { Rng } from "../../src/core/index.ts";
import type { KernelName, KernelNumbers } from "../../src/kernels/index.ts";
import { blank, f32, i32, runKernel, uniform, type Alias, type Fields } from "../helpers/kernel-calls.ts";
import { LENGTHS, reference, startsOf, type Case, type Cases, type Results } from "./case.ts";
import { attentionMagnitudes } from "./attention-magnitudes.ts";
import { BF16_ROUNDOFF, bound, relative, type Bound } from "./tolerances.ts";

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
  /** Documents that share a flat batch. */
  readonly lengths: readonly number[];
  /** One k2 for all heads, as MLA has it. */
  readonly shared: boolean;
}

const HEADS = [
  { heads: 1, kvHeads: 1, nopeDim: 1, ropeDim: 0, valueDim: 1, shared: true },
  { heads: 2, kvHeads: 2, nopeDim: 7, ropeDim: 2, valueDim: 5, shared: true },
  { heads: 3, kvHeads: 3, nopeDim: 16, ropeDim: 8, valueDim: 16, shared: true },
  { heads: 2, kvHeads: 2, nopeDim: 16, ropeDim: 6, valueDim: 33, shared: false },
  { heads: 6, kvHeads: 2, nopeDim: 17, ropeDim: 0, valueDim: 17, shared: true },
];
const BATCHES = [...LENGTHS.map((length) => [length]), [1, 1, 1], [1, 17, 1, 65, 3], [64, 128]];
/** The dims of DeepSeek-V3. */
const WIDE = { heads: 2, kvHeads: 2, nopeDim: 128, ropeDim: 64, valueDim: 128, shared: true };
const SHAPES: readonly Shape[] = [
  ...HEADS.flatMap((head) => BATCHES.map((lengths) => ({ ...head, lengths }))),
  ...[[], [0], [1], [17], [66, 0, 1]].map((lengths) => ({ ...WIDE, lengths })),
  { ...HEADS[1]!, lengths: [290] },
];

type Numbers = KernelNumbers<"attention">;

/** k1 and v stand side by side in one matrix, `[k1 ‖ v]` per head, with one odd column after each row. */
function numbersOf({ heads, kvHeads, nopeDim, ropeDim, valueDim, lengths, shared }: Shape, compute: number): Numbers {
  const row = kvHeads * (nopeDim + valueDim) + 1;
  const head = nopeDim + valueDim;
  return {
    ...{ n: lengths.reduce((a, b) => a + b, 0), heads, kvHeads, nopeDim, ropeDim, valueDim },
    ...{ seqs: lengths.length, compute },
    ...{ qStride: heads * (nopeDim + ropeDim) + 2, k1Row: row, k1Head: head, vRow: row, vHead: head },
    ...{ k2Row: shared ? ropeDim + 3 : heads * ropeDim, k2Head: shared ? 0 : ropeDim },
    scale: 1 / Math.sqrt(nopeDim + ropeDim),
  };
}

/** The operands of the forward pass; v lies in the memory of k1. */
function inputs(rng: Rng, { n, heads, valueDim, qStride, k1Row, k2Row, ropeDim }: Numbers, lengths: readonly number[]) {
  return {
    q: f32(uniform(rng, n * qStride, 2)),
    k1: f32(uniform(rng, n * k1Row, 2)),
    k2: ropeDim === 0 ? undefined : f32(uniform(rng, n * k2Row, 2)),
    v: f32([]),
    seqStarts: i32(startsOf(lengths)),
    out: blank("f32", n * heads * valueDim),
    lse: blank("f32", n * heads),
  } satisfies Fields<"attention">;
}

/** Where the values start in the matrix of k1, which may be empty. */
const valuesAt = ({ n, nopeDim }: Numbers): number => (n === 0 ? 0 : nopeDim);

const valuesIn = (numbers: Numbers): Record<"v", Alias> => ({ v: { of: "k1", at: valuesAt(numbers) } });

/** The largest Euclidean norm among vectors of `width` that stand at every row and head. */
function largestNorm(
  values: ArrayLike<number>,
  n: number,
  heads: number,
  at: { row: number; head: number; width: number },
): number {
  let largest = 0;
  for (let i = 0; i < n * heads; i++) {
    const start = Math.floor(i / heads) * at.row + (i % heads) * at.head;
    let squares = 0;
    for (let c = 0; c < at.width; c++) squares += values[start + c]! ** 2;
    largest = Math.max(largest, squares);
  }
  return Math.sqrt(largest);
}

/** No score is larger, nor the sum of the absolute values of its terms (Cauchy–Schwarz). */
function largestScore(fields: Pick<Fields<"attention">, "q" | "k1" | "k2">, numbers: Numbers): number {
  const { n, heads, kvHeads, nopeDim, ropeDim, qStride, k1Row, k1Head, k2Row, k2Head, scale } = numbers;
  const width = nopeDim + ropeDim;
  const q = largestNorm(fields.q.values, n, heads, { row: qStride, head: width, width });
  const k1 = largestNorm(fields.k1.values, n, kvHeads, { row: k1Row, head: k1Head, width: nopeDim });
  const k2 = largestNorm(fields.k2?.values ?? [], n, heads, { row: k2Row, head: k2Head, width: ropeDim });
  return scale * q * Math.hypot(k1, k2);
}

/** The relative error of exp(score − max): of the exponential itself, of the score's own sum, and of the difference. */
const powerError = (score: number, terms: number): number =>
  relative("exponential", { exponent: 2 * score }) + 2 * score * relative("matmulF32", { terms });

/** The reference rounds its weights to bf16 too, but relative to another maximum. */
const weightRounding = ({ compute }: Numbers): number => (compute === 1 ? 2 * BF16_ROUNDOFF : 0);

function* attention(rng: Rng): Iterable<Case<"attention">> {
  for (const shape of SHAPES) {
    for (const compute of [0, 1]) {
      const numbers = numbersOf(shape, compute);
      const fields = inputs(rng, numbers, shape.lengths);
      const score = largestScore(fields, numbers);
      const power = powerError(score, numbers.nopeDim + numbers.ropeDim);
      const sum = relative("exponential", { terms: numbers.n });
      const test = {
        title: `documents of ${shape.lengths.join(", ")}, ${JSON.stringify(numbers)}`,
        fields,
        numbers,
        alias: valuesIn(numbers),
        bounds: (want: Results<"attention">) => ({
          out: scaled(2 * power + weightRounding(numbers) + sum, attentionMagnitudes(fields, want.lse, numbers).out),
          lse: () => power + sum * (1 + score),
        }),
      };
      yield test;
      if (shape.lengths.length === 5) {
        yield { ...test, title: `special values, ${test.title}`, fields: withSpecials(fields, numbers) };
      }
    }
  }
}

/** Of documents 0, 1–17, 18, 19–83 and 84–86: what is not a number stays in its document and in the rows that see it. */
function withSpecials(fields: Fields<"attention">, { qStride, k1Row, nopeDim }: Numbers): Fields<"attention"> {
  const [q, k1] = [Float64Array.from(fields.q.values), Float64Array.from(fields.k1.values)];
  q[30 * qStride] = NaN;
  k1[50 * k1Row] = NaN;
  // The first row of a document, because a kernel may multiply later values by a weight of 0.
  k1[1 * k1Row + nopeDim] = Infinity;
  k1[84 * k1Row + nopeDim] = NaN;
  return { ...fields, q: f32(q), k1: f32(k1) };
}

function* attentionBackward(rng: Rng): Iterable<Case<"attentionBackward">> {
  for (const shape of SHAPES) {
    for (const compute of [0, 1]) {
      const numbers = numbersOf(shape, compute);
      const { n, heads, valueDim, qStride, k1Row, k2Row, ropeDim, nopeDim } = numbers;
      const saved = inputs(rng, numbers, shape.lengths);
      const { out, lse } = runKernel(reference, "attention", saved, { ...numbers, compute: 0 }, valuesIn(numbers));
      const dOut = uniform(rng, n * heads * valueDim);
      const k2Length = ropeDim === 0 ? 0 : n * k2Row;
      const fields = {
        ...saved,
        ...{ out: f32(out), lse: f32(lse), dOut: f32(dOut), delta: blank("f32", n * heads) },
        ...{ dq: f32(uniform(rng, n * qStride)), dk1: f32(uniform(rng, n * k1Row)), dv: f32([]) },
        dk2: ropeDim === 0 ? undefined : f32(uniform(rng, k2Length)),
      };
      const alias = { ...valuesIn(numbers), dv: { of: "dk1", at: valuesAt(numbers) } };
      yield {
        title: `documents of ${shape.lengths.join(", ")}, ${JSON.stringify(numbers)}`,
        fields,
        numbers,
        alias,
        bounds: () => {
          const terms = Math.max(n * heads, valueDim, nopeDim + ropeDim);
          const power = powerError(largestScore(fields, numbers), nopeDim + ropeDim);
          const error = 2 * power + 2 * weightRounding(numbers) + relative("exponential", { terms });
          const { dq, dk1, dk2, dv, delta } = attentionMagnitudes(fields, lse, numbers, dOut);
          return {
            delta: bound("arithmetic", delta, { terms: valueDim }),
            dq: scaled(error, dq),
            // dk1 and dv are columns of one matrix.
            dk1: scaled(
              error,
              dk1.map((value, i) => value + (dv[i - nopeDim] ?? 0)),
            ),
            dv: scaled(
              error,
              dv.map((value, i) => value + (dk1[i + nopeDim] ?? 0)),
            ),
            dk2: scaled(error, dk2),
          };
        },
      };
    }
  }
}

const scaled =
  (error: number, magnitude: Float64Array): Bound =>
  (i) =>
    error * magnitude[i]!;

function* cacheWrite(rng: Rng): Iterable<Case<"cacheWrite">> {
  for (const n of [0, 1, 3, 17, 130]) {
    for (const [latentDim, ropeDim] of [
      [1, 1],
      [7, 2],
      [33, 8],
      [512, 64],
    ] as const) {
      const [poolRows, latentStride, ropeStride] = [n + 9, latentDim + 2, ropeDim + 1];
      yield {
        title: `${n} rows of ${latentDim} + ${ropeDim}`,
        fields: {
          latent: f32(uniform(rng, n * latentStride)),
          rope: f32(uniform(rng, n * ropeStride)),
          slots: i32(Array.from({ length: n }, (_, i) => (i * 7 + 3) % poolRows)),
          pool: f32(uniform(rng, poolRows * (latentDim + ropeDim))),
        },
        numbers: { n, latentDim, ropeDim, latentStride, ropeStride, poolRows },
      };
    }
  }
}

function* mlaDecode(rng: Rng): Iterable<Case<"mlaDecode">> {
  const DECODES = [
    { heads: 1, latentDim: 1, ropeDim: 1, blockSize: 1 },
    { heads: 3, latentDim: 17, ropeDim: 6, blockSize: 4 },
    { heads: 2, latentDim: 64, ropeDim: 16, blockSize: 16 },
    { heads: 5, latentDim: 512, ropeDim: 64, blockSize: 64 },
  ];
  for (const { heads, latentDim, ropeDim, blockSize } of DECODES) {
    for (const lengths of [[1], [3, 0, 7], [63, 64, 65, 1], [130], [600, 2]]) {
      const batch = lengths.length;
      const maxBlocks = Math.ceil(Math.max(...lengths) / blockSize) + 1;
      const blocks = batch * maxBlocks;
      const poolRows = blocks * blockSize;
      const [ropeHead, ropeRow] = [ropeDim + 1, heads * (ropeDim + 1) + 2];
      const scale = 1 / Math.sqrt(latentDim + ropeDim);
      const numbers = { batch, heads, latentDim, ropeDim, ropeRow, ropeHead, blockSize, maxBlocks, poolRows, scale };
      const dims = latentDim + ropeDim;
      const score = scale * dims;
      const power =
        relative("exponential", { exponent: 2 * score }) + 2 * score * relative("matmulF32", { terms: dims });
      const error = 2 * power + relative("exponential", { terms: Math.max(...lengths) });
      yield {
        title: `lengths ${lengths.join(", ")}, ${JSON.stringify(numbers)}`,
        fields: {
          qLatent: f32(uniform(rng, batch * heads * latentDim)),
          qRope: f32(uniform(rng, batch * ropeRow)),
          pool: f32(uniform(rng, poolRows * dims)),
          // Blocks stand in the pool from the last to the first.
          blockTable: i32(Array.from({ length: blocks }, (_, i) => blocks - 1 - i)),
          seqLens: i32(lengths),
          out: blank("f32", batch * heads * latentDim),
        },
        numbers,
        bounds: () => ({ out: () => error }),
      };
    }
  }
}

function* gqaDecode(rng: Rng): Iterable<Case<"gqaDecode">> {
  const DECODES = [
    { heads: 1, kvHeads: 1, headDim: 1, blockSize: 1 },
    { heads: 6, kvHeads: 2, headDim: 17, blockSize: 4 },
    { heads: 3, kvHeads: 3, headDim: 64, blockSize: 16 },
    { heads: 8, kvHeads: 1, headDim: 128, blockSize: 64 },
  ];
  for (const { heads, kvHeads, headDim, blockSize } of DECODES) {
    for (const lengths of [[1], [3, 0, 7], [63, 64, 65, 1], [130], [600, 2]]) {
      const batch = lengths.length;
      const maxBlocks = Math.ceil(Math.max(...lengths) / blockSize) + 1;
      const poolRows = batch * maxBlocks * blockSize;
      const scale = 1 / Math.sqrt(headDim);
      const numbers = { batch, heads, kvHeads, headDim, blockSize, maxBlocks, poolRows, scale };
      const power = powerError(scale * headDim, headDim);
      const error = 2 * power + relative("exponential", { terms: Math.max(...lengths) });
      yield {
        title: `lengths ${lengths.join(", ")}, ${JSON.stringify(numbers)}`,
        fields: {
          q: f32(uniform(rng, batch * heads * headDim)),
          pool: f32(uniform(rng, poolRows * 2 * kvHeads * headDim)),
          // Blocks stand in the pool from the last to the first.
          blockTable: i32(Array.from({ length: batch * maxBlocks }, (_, i) => batch * maxBlocks - 1 - i)),
          seqLens: i32(lengths),
          out: blank("f32", batch * heads * headDim),
        },
        numbers,
        bounds: () => ({ out: () => error }),
      };
    }
  }
}

export const ATTENTION_CASES = { attention, attentionBackward, cacheWrite, mlaDecode, gqaDecode } satisfies {
  [K in KernelName]?: Cases<K>;
};
