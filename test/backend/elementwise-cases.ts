/** Cases of kernels that treat elements or rows one by one. */

import type { Rng } from "../../src/core/index.ts";
import type { KernelName } from "../../src/kernels/index.ts";
import { bf16, blank, f32, i32, runKernel, uniform, type Field } from "../helpers/kernel-calls.ts";
import { indices, LENGTHS, linear, MANY, reference, special, type Case, type Cases } from "./case.ts";
import { BF16_ROUNDOFF, bound } from "./tolerances.ts";

const SIZES = [0, ...LENGTHS, MANY];
/** No row, one, an odd number, and enough for several chunks. */
const ROWS = [
  { n: 0, widths: [5] },
  { n: 1, widths: LENGTHS },
  { n: 5, widths: LENGTHS },
  { n: 700, widths: [65] },
];
const shapes = ROWS.flatMap(({ n, widths }) => widths.map((d) => ({ n, d })));

/** Plain values, then special ones. */
const values = (rng: Rng, n: number): { kind: string; next: (length: number) => Float64Array }[] => [
  { kind: `n ${n}`, next: (length) => uniform(rng, length) },
  { kind: `n ${n}, special values`, next: (length) => special(rng, length) },
];

function* fill(): Iterable<Case<"fill">> {
  for (const n of SIZES) {
    for (const value of [0, 0.1, -Infinity, NaN]) {
      yield { title: `n ${n}, ${value}`, fields: { y: blank("f32", n) }, numbers: { n, value } };
    }
  }
}

function* copy2d(rng: Rng): Iterable<Case<"copy2d">> {
  const types: ((values: ArrayLike<number>) => Field)[] = [f32, bf16];
  for (const { n: rows, d: cols } of shapes) {
    const [xStride, yStride] = rows < 2 ? [cols, cols] : [cols + 3, cols + 5];
    for (const [x, y] of types.flatMap((from) => types.map((to) => [from(special(rng, rows * xStride)), to] as const)))
      for (const accumulate of [0, 1]) {
        const before = y(uniform(rng, rows * yStride));
        const title = `${rows} × ${cols}, ${x.dtype} to ${before.dtype}, accumulate ${accumulate}`;
        yield { title, fields: { x, y: before }, numbers: { rows, cols, xStride, yStride, accumulate } };
      }
  }
}

function* add(rng: Rng): Iterable<Case<"add">> {
  for (const n of SIZES) {
    for (const { kind, next } of values(rng, n)) {
      yield { title: kind, fields: { a: f32(next(n)), b: f32(next(n)), y: blank("f32", n) }, numbers: { n } };
    }
  }
}

function* axpy(rng: Rng): Iterable<Case<"axpy">> {
  for (const n of SIZES) {
    for (const { kind, next } of values(rng, n)) {
      const test = { title: kind, fields: { x: f32(next(n)), y: f32(next(n)) }, numbers: { n, scale: 0.3 } };
      yield linear("axpy", test, "y", { family: "arithmetic", terms: 2 });
    }
  }
}

function* sum(rng: Rng): Iterable<Case<"sum">> {
  for (const n of SIZES) {
    for (const accumulate of [0, 1]) {
      for (const { kind, next } of values(rng, n)) {
        const test = {
          title: `${kind}, accumulate ${accumulate}`,
          fields: { x: f32(next(n)), y: f32([3]) },
          numbers: { n, scale: -0.1, accumulate },
        };
        yield { ...test, bounds: ({ y }) => ({ y: bound("float64Sum", Math.abs(y[0]!) + 3 * accumulate) }) };
      }
    }
  }
}

function* sumSquares(rng: Rng): Iterable<Case<"sumSquares">> {
  for (const n of SIZES) {
    for (const { kind, next } of values(rng, n)) {
      const fields = { x: f32(next(n)), y: blank("f32", 1) };
      yield { title: kind, fields, numbers: { n }, bounds: ({ y }) => ({ y: bound("float64Sum", y) }) };
    }
  }
}

function* gatherRows(rng: Rng): Iterable<Case<"gatherRows">> {
  for (const { n: rows, d } of shapes) {
    const xRows = 7;
    const fields = {
      x: f32(special(rng, xRows * d)),
      index: i32(indices(rng, rows, xRows)),
      y: blank("f32", rows * d),
    };
    yield { title: `${rows} × ${d}`, fields, numbers: { rows, d, xRows } };
  }
}

function* randomNormal(): Iterable<Case<"randomNormal">> {
  for (const n of SIZES) {
    const numbers = { n, std: 0.02, keyLo: 0xfedcba98, keyHi: n };
    const bounds: Case<"randomNormal">["bounds"] = ({ y }) => ({ y: bound("float64Function", y) });
    yield { title: `n ${n}`, fields: { y: blank("f32", n) }, numbers, bounds };
  }
}

function* embedding(rng: Rng): Iterable<Case<"embedding">> {
  const vocab = 11;
  for (const { n, d } of shapes) {
    for (const table of [f32(special(rng, vocab * d)), bf16(special(rng, vocab * d))]) {
      const fields = { ids: i32(indices(rng, n, vocab)), table, y: blank("f32", n * d) };
      yield { title: `${n} × ${d} of ${table.dtype}`, fields, numbers: { n, d, vocab } };
    }
  }
}

function* embeddingBackward(rng: Rng): Iterable<Case<"embeddingBackward">> {
  for (const { n, d } of shapes) {
    for (const [accumulate, vocab] of [
      [0, 3],
      [1, 3],
      [0, 40],
    ] as const) {
      const test = {
        title: `${n} × ${d} into ${vocab}, accumulate ${accumulate}`,
        fields: {
          ids: i32(indices(rng, n, vocab)),
          dy: f32(uniform(rng, n * d)),
          dTable: f32(uniform(rng, vocab * d)),
        },
        numbers: { n, d, vocab, accumulate },
      };
      yield linear("embeddingBackward", test, "dTable", { family: "arithmetic", terms: n });
    }
  }
}

function* rmsNorm(rng: Rng): Iterable<Case<"rmsNorm">> {
  for (const { n, d } of shapes) {
    const xStride = n < 2 ? d : d + 3;
    const x = uniform(rng, n * xStride, 3);
    if (n === 5) {
      x[0] = NaN;
      x[xStride] = -Infinity;
      x.fill(0, 2 * xStride, 3 * xStride);
      x.fill(1e-40, 3 * xStride, 4 * xStride);
    }
    yield {
      title: `${n} × ${d}`,
      fields: { x: f32(x), w: f32(uniform(rng, d)), y: blank("f32", n * d), rstd: blank("f32", n) },
      numbers: { n, d, xStride, eps: 1e-6 },
      bounds: ({ y, rstd }) => ({ y: bound("norm", y, { terms: d }), rstd: bound("norm", rstd, { terms: d }) }),
    };
  }
}

function* rmsNormBackward(rng: Rng): Iterable<Case<"rmsNormBackward">> {
  for (const { n, d } of shapes) {
    for (const [accumulateX, accumulateW, withW] of [
      [0, 0, true],
      [1, 1, true],
      [1, 0, false],
    ] as const) {
      const [xStride, dxStride] = n < 2 ? [d, d] : [d + 3, d + 1];
      const [x, w, dy] = [uniform(rng, n * xStride, 3), uniform(rng, d), uniform(rng, n * d)];
      const saved = { x: f32(x), w: f32(w), y: blank("f32", n * d), rstd: blank("f32", n) };
      const { rstd } = runKernel(reference, "rmsNorm", saved, { n, d, xStride, eps: 1e-3 });
      const before = { dx: uniform(rng, n * dxStride), dw: uniform(rng, d) };
      const magnitude = { dx: new Float64Array(n * dxStride), dw: before.dw.map(Math.abs) };
      for (let r = 0; r < n; r++) {
        const term = (c: number): number => Math.abs(w[c]! * dy[r * d + c]!);
        const at = (c: number): number => Math.abs(x[r * xStride + c]!);
        let mean = 0;
        for (let c = 0; c < d; c++) mean += (term(c) * at(c)) / d;
        for (let c = 0; c < d; c++) {
          const i = r * dxStride + c;
          magnitude.dx[i] = rstd[r]! * (term(c) + at(c) * rstd[r]! ** 2 * mean) + Math.abs(before.dx[i]!);
          magnitude.dw[c]! += Math.abs(dy[r * d + c]!) * at(c) * rstd[r]!;
        }
      }
      yield {
        title: `${n} × ${d}, accumulate ${accumulateX} and ${accumulateW}, ${withW ? "with" : "without"} dw`,
        fields: {
          ...{ x: f32(x), w: f32(w), rstd: f32(rstd), dy: f32(dy), dx: f32(before.dx) },
          dw: withW ? f32(before.dw) : undefined,
        },
        numbers: { n, d, xStride, dxStride, accumulateX, accumulateW },
        bounds: () => ({
          dx: bound("norm", magnitude.dx, { terms: d }),
          dw: bound("norm", magnitude.dw, { terms: n }),
        }),
      };
    }
  }
}

/** Gates up to ±200, where e^−g leaves the range of f32. */
function gates(rng: Rng, length: number): Float64Array {
  const gate = uniform(rng, length, 8);
  for (const value of [200, -200, NaN, 1e-40, -0]) gate[rng.nextUint32() % length] = value;
  return gate;
}

/** silu(−200) is 0 in f32 and not in float64, so that its product with infinity would differ. */
const finite = (values: Float64Array): Float64Array => values.map((x) => (Math.abs(x) === Infinity ? 1 : x));

function* siluMul(rng: Rng): Iterable<Case<"siluMul">> {
  for (const { n, d } of shapes) {
    for (const scale of [undefined, f32(uniform(rng, n))]) {
      yield {
        title: `${n} × ${d}, ${scale ? "with" : "without"} scale`,
        fields: { gate: f32(gates(rng, n * d)), up: f32(finite(special(rng, n * d))), scale, y: blank("f32", n * d) },
        numbers: { n, d },
        bounds: ({ y }) => ({ y: bound("exponential", y) }),
      };
    }
  }
}

function* siluMulBackward(rng: Rng): Iterable<Case<"siluMulBackward">> {
  for (const { n, d } of shapes) {
    for (const withScale of [false, true]) {
      const [gate, up, dy, scale] = [gates(rng, n * d), uniform(rng, n * d), uniform(rng, n * d), uniform(rng, n)];
      const sigmoid = gate.map((g) => 1 / (1 + Math.exp(-g)));
      const slope = gate.map((g, i) => sigmoid[i]! * (1 + Math.abs(g) * (1 - sigmoid[i]!)));
      const dScale = new Float64Array(n);
      for (const [i, g] of gate.entries()) {
        dScale[Math.floor(i / d)]! += Math.abs(dy[i]! * up[i]! * g * sigmoid[i]!);
      }
      yield {
        title: `${n} × ${d}, ${withScale ? "with" : "without"} scale`,
        fields: {
          ...{ gate: f32(gate), up: f32(up), dy: f32(dy), dGate: blank("f32", n * d), dUp: blank("f32", n * d) },
          scale: withScale ? f32(scale) : undefined,
          dScale: withScale ? blank("f32", n) : undefined,
        },
        numbers: { n, d },
        bounds: ({ dUp }) => ({
          dGate: bound(
            "exponential",
            slope.map((s, i) => s * dy[i]! * up[i]!),
          ),
          dUp: bound("exponential", dUp),
          dScale: bound("exponential", dScale, { terms: d }),
        }),
      };
    }
  }
}

function* rope(rng: Rng): Iterable<Case<"rope">> {
  const layouts = [0, 1].flatMap((interleave) => [0, 1].map((inverse) => ({ interleave, inverse })));
  const heads = [
    { heads: 1, headDim: 2, ropeDim: 2 },
    { heads: 3, headDim: 7, ropeDim: 4 },
    { heads: 2, headDim: 16, ropeDim: 16 },
    { heads: 4, headDim: 65, ropeDim: 34 },
    { heads: 2, headDim: 192, ropeDim: 64 },
  ];
  for (const n of [1, 3, 130]) {
    for (const { heads: count, headDim, ropeDim } of heads) {
      for (const [i, { interleave, inverse }] of layouts.entries()) {
        const accumulate = i % 2;
        const maxPos = 20;
        const [xStride, yStride] = [count * headDim + (n - 1), count * headDim + i];
        const numbers = {
          n,
          heads: count,
          headDim,
          ropeDim,
          xStride,
          yStride,
          maxPos,
          interleave,
          inverse,
          accumulate,
        };
        const fields = {
          x: f32(uniform(rng, n * xStride)),
          table: f32(uniform(rng, maxPos * ropeDim)),
          positions: i32(indices(rng, n, maxPos)),
          y: f32(uniform(rng, n * yStride)),
        };
        // |x| ≤ 1, |cos| ≤ 1, |sin| ≤ 1 and what is added to is at most 1.
        yield { title: JSON.stringify(numbers), fields, numbers, bounds: () => ({ y: bound("arithmetic", 3) }) };
      }
    }
  }
}

function* softmaxCrossEntropy(rng: Rng): Iterable<Case<"softmaxCrossEntropy">> {
  const modes = ["without gradient", "with gradient", "gradient over the logits"];
  for (const { n: rows, d: vocab } of [...shapes, { n: 30, d: 3001 }]) {
    for (const mode of modes) {
      const logits = uniform(rng, rows * vocab, 20);
      const targets = indices(rng, rows, vocab);
      if (rows === 5) {
        targets[0] = -1;
        logits[vocab] = NaN;
        if (vocab > 1) logits[2 * vocab + ((targets[2]! + 1) % vocab)] = -Infinity;
        logits.fill(1e30, 3 * vocab, 4 * vocab);
      }
      const scale = 0.25;
      yield {
        title: `${rows} × ${vocab}, ${mode}`,
        fields: {
          logits: f32(logits),
          targets: i32(targets),
          losses: blank("f32", rows),
          dLogits: mode === modes[0] ? undefined : blank("f32", rows * vocab),
        },
        numbers: { rows, vocab, scale },
        ...(mode === modes[2] ? { alias: { dLogits: { of: "logits", at: 0 } } } : {}),
        bounds: (want) => {
          // The difference of two logits, at most 2 · 20 apart, and the logarithm of a sum.
          const difference = bound("exponential", 40 + Math.log(vocab));
          const logarithm = bound("exponential", 1, { terms: vocab });
          // scale · p, or at the target scale · (p − 1), where p = exp(logit − largest) / sum.
          const written = mode === modes[2] ? want.logits : (want.dLogits ?? []);
          const magnitude = Array.from(written, (value, i) =>
            i % vocab === targets[Math.floor(i / vocab)] ? 2 * scale : value,
          );
          const gradient = bound("exponential", magnitude, { terms: vocab, exponent: 40 });
          return {
            losses: (r) => difference(r) + logarithm(r),
            dLogits: gradient,
            ...(mode === modes[2] ? { logits: gradient } : {}),
          };
        },
      };
    }
  }
}

function* adamwInto(rng: Rng): Iterable<Case<"adamwInto">> {
  const rule = { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, correction1: 0.19, correction2: 0.1 };
  for (const n of SIZES) {
    for (const withCopy of [false, true]) {
      const [p, g, m] = [uniform(rng, n), special(rng, n).map((x) => (x === 1e30 ? 1e3 : x)), uniform(rng, n, 0.1)];
      const v = uniform(rng, n, 0.1).map(Math.abs);
      const gradScale = 0.5;
      const numbers = { n, ...rule, gradScale };
      const gradient = g.map((x) => Math.abs(x * gradScale));
      const mean = m.map((x, i) => rule.beta1 * Math.abs(x) + (1 - rule.beta1) * gradient[i]!);
      const square = v.map((x, i) => rule.beta2 * x + (1 - rule.beta2) * gradient[i]! ** 2);
      const weight = p.map((x, i) => {
        const step = mean[i]! / rule.correction1 / (Math.sqrt(square[i]! / rule.correction2) + rule.eps);
        return Math.abs(x) + rule.lr * (step + rule.weightDecay * Math.abs(x));
      });
      yield {
        title: `n ${n}, ${withCopy ? "with" : "without"} copy`,
        fields: { p: f32(p), g: f32(g), m: f32(m), v: f32(v), copy: withCopy ? blank("bf16", n) : undefined },
        numbers,
        bounds: () => ({
          p: bound("optimizer", weight),
          m: bound("optimizer", mean),
          v: bound("optimizer", square),
          // Weights on both sides of a rounding boundary may round apart by one bf16.
          copy: (i) => 2 * BF16_ROUNDOFF * weight[i]!,
        }),
      };
    }
  }
}

export const ELEMENTWISE_CASES = {
  fill,
  copy2d,
  add,
  axpy,
  sum,
  sumSquares,
  gatherRows,
  randomNormal,
  embedding,
  embeddingBackward,
  rmsNorm,
  rmsNormBackward,
  siluMul,
  siluMulBackward,
  rope,
  softmaxCrossEntropy,
  adamwInto,
} satisfies { [K in KernelName]?: Cases<K> };
