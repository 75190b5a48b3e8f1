import { expect, test } from "vitest";
import { blank, f64, i32, runKernel, uniform } from "../../../test/helpers/kernel-calls.ts";
import { Rng } from "../../core/rng.ts";
import { createReferenceBackend } from "./backend.ts";

const backend = createReferenceBackend();

test("a row attends to itself and to earlier rows of its own sequence", () => {
  const { out, lse } = runKernel(
    backend,
    "attention",
    {
      q: f64([1, 1, 1]),
      k1: f64([0, Math.log(3), 5]),
      k2: undefined,
      v: f64([4, 8, 100]),
      seqStarts: i32([0, 2, 3]),
      out: blank("f64", 3),
      lse: blank("f64", 3),
    },
    {
      ...{ n: 3, heads: 1, kvHeads: 1, nopeDim: 1, ropeDim: 0, valueDim: 1, seqs: 2, qStride: 1, scale: 1, compute: 0 },
      ...{ k1Row: 1, k1Head: 1, k2Row: 0, k2Head: 0, vRow: 1, vHead: 1 },
    },
  );
  expect(out[0]).toBe(4);
  expect(out[1]).toBeCloseTo(7, 14);
  expect(out[2]).toBe(100);
  expect(lse[1]).toBeCloseTo(Math.log(4), 14);
});

test("decoding from the cache gives what attention gives for the last row, whatever the order of the blocks", () => {
  const rng = new Rng(3, "decode");
  const [n, heads, latentDim, ropeDim, blockSize, poolRows, scale] = [5, 2, 3, 2, 2, 8, 0.6];
  const latent = uniform(rng, n * latentDim);
  const rope = uniform(rng, n * ropeDim);
  const q = uniform(rng, heads * (latentDim + ropeDim));
  // Blocks 3, 0 and 2 of the pool, two rows each.
  const { pool } = runKernel(
    backend,
    "cacheWrite",
    { latent: f64(latent), rope: f64(rope), slots: i32([6, 7, 0, 1, 4]), pool: f64(new Float64Array(poolRows * 5)) },
    { n, latentDim, ropeDim, latentStride: latentDim, ropeStride: ropeDim, poolRows },
  );
  const part = (from: number, to: number): Float64Array =>
    Float64Array.from([0, 1].flatMap((h) => [...q.subarray(h * 5 + from, h * 5 + to)]));
  const decoded = runKernel(
    backend,
    "mlaDecode",
    {
      qLatent: f64(part(0, latentDim)),
      qRope: f64(part(latentDim, 5)),
      pool: f64(pool),
      blockTable: i32([3, 0, 2, -1]),
      seqLens: i32([n]),
      out: blank("f64", heads * latentDim),
    },
    { batch: 1, heads, latentDim, ropeDim, ropeRow: 0, ropeHead: ropeDim, blockSize, maxBlocks: 4, poolRows, scale },
  ).out;
  const queries = new Float64Array(n * heads * 5);
  queries.set(q, (n - 1) * heads * 5);
  const { out } = runKernel(
    backend,
    "attention",
    {
      q: f64(queries),
      k1: f64(latent),
      k2: f64(rope),
      v: f64(latent),
      seqStarts: i32([0, n]),
      out: blank("f64", n * heads * latentDim),
      lse: blank("f64", n * heads),
    },
    {
      ...{ n, heads, kvHeads: heads, nopeDim: latentDim, ropeDim, valueDim: latentDim, seqs: 1 },
      ...{ qStride: heads * 5, scale, compute: 0 },
      ...{ k1Row: latentDim, k1Head: 0, k2Row: ropeDim, k2Head: 0, vRow: latentDim, vHead: 0 },
    },
  );
  const last = out.subarray((n - 1) * heads * latentDim);
  for (const [i, value] of decoded.entries()) expect(value).toBeCloseTo(last[i]!, 14);
});

/** k and v [n, G · d] apart; the shape of an attention call over one document. */
const plainShape = (n: number, heads: number, kvHeads: number, headDim: number) => ({
  ...{ n, heads, kvHeads, nopeDim: headDim, ropeDim: 0, valueDim: headDim, seqs: 1, qStride: heads * headDim },
  ...{ k1Row: kvHeads * headDim, k1Head: headDim, k2Row: 0, k2Head: 0, vRow: kvHeads * headDim, vHead: headDim },
  ...{ scale: 0.6, compute: 0 },
});

test("queries that share keys give what copies of the keys give, and the cache gives the same for the last row", () => {
  const rng = new Rng(5, "shared keys");
  const [n, heads, kvHeads, headDim] = [5, 6, 2, 3];
  const [q, k, v] = [heads, kvHeads, kvHeads].map((h) => uniform(rng, n * h * headDim)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const attend = (keys: Float64Array, values: Float64Array, count: number): Float64Array =>
    runKernel(
      backend,
      "attention",
      {
        ...{ q: f64(q), k1: f64(keys), k2: undefined, v: f64(values), seqStarts: i32([0, n]) },
        ...{ out: blank("f64", n * heads * headDim), lse: blank("f64", n * heads) },
      },
      plainShape(n, heads, count, headDim),
    ).out;
  const repeated = (x: Float64Array): Float64Array =>
    Float64Array.from({ length: n * heads * headDim }, (_, at) => {
      const [row, h, c] = [Math.floor(at / (heads * headDim)), Math.floor(at / headDim) % heads, at % headDim];
      return x[(row * kvHeads + Math.floor(h / 3)) * headDim + c]!;
    });
  const out = attend(k, v, kvHeads);
  expect(out).toEqual(attend(repeated(k), repeated(v), heads));

  const width = kvHeads * headDim;
  const { pool } = runKernel(
    backend,
    "cacheWrite",
    { latent: f64(k), rope: f64(v), slots: i32([6, 7, 0, 1, 4]), pool: f64(new Float64Array(8 * 2 * width)) },
    { n, latentDim: width, ropeDim: width, latentStride: width, ropeStride: width, poolRows: 8 },
  );
  const last = (n - 1) * heads * headDim;
  const decoded = runKernel(
    backend,
    "gqaDecode",
    {
      ...{ q: f64(q.subarray(last)), pool: f64(pool), blockTable: i32([3, 0, 2, -1]), seqLens: i32([n]) },
      out: blank("f64", heads * headDim),
    },
    { batch: 1, heads, kvHeads, headDim, blockSize: 2, maxBlocks: 4, poolRows: 8, scale: 0.6 },
  ).out;
  for (const [i, value] of decoded.entries()) expect(value).toBeCloseTo(out[last + i]!, 14);
});
