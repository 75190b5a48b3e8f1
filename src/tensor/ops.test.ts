/** Every operation's gradient by central differences in float64, and fused operations against composed ones. */

import { describe, expect, test } from "vitest";
import { Rng } from "../core/rng.ts";
import { createReferenceBackend } from "../kernels/index.ts";
import { checkGradients } from "./gradient-check.ts";
import {
  Parameter,
  Scope,
  Tape,
  type Tensor,
  add,
  attention,
  balanceLoss,
  concat,
  embedding,
  experts,
  groupedAttention,
  headLoss,
  linear,
  rmsNorm,
  rope,
  route,
  siluMul,
  split,
  type RouteAttrs,
} from "./index.ts";

const backend = createReferenceBackend();
const outer = Scope.root(backend, { dtype: "f64" });
const rng = new Rng(7, "ops.test");

function randoms(size: number, spread = 1): Float64Array {
  return Float64Array.from({ length: size }, () => spread * (2 * rng.uniform() - 1));
}

function parameter(name: string, shape: number[], spread = 1): Parameter {
  const size = shape.reduce((a, b) => a * b, 1);
  return new Parameter(name, outer.from(randoms(size, spread), shape));
}

/** A fixed head: the gradient of the head itself has its own test. */
function frozen(shape: number[]): Parameter {
  return new Parameter("head", parameter("head", shape).value, false);
}

const ints = (values: number[]): Tensor => outer.from(values, [values.length], "i32");

/** Values of a parameter as a tensor that gradients flow through: rows of the table in order. */
function asTensor(scope: Scope, p: Parameter): Tensor {
  return embedding(scope, ints(Array.from({ length: p.value.rows }, (_, i) => i)), p);
}

/** A scalar of x whose gradient differs in every element: a fixed head and fixed targets over its rows. */
function score(scope: Scope, x: Tensor, head: Parameter): { roots: Tensor[]; value: () => number } {
  const targets = ints(Array.from({ length: x.rows }, (_, i) => (i === 1 ? -1 : i % head.value.rows)));
  const losses = headLoss(scope, x, head, targets, 0.5);
  return { roots: [losses], value: () => 0.5 * sum(losses) };
}

function sum(x: Tensor): number {
  return doubles(x).reduce((a, b) => a + b, 0);
}

function doubles(x: Tensor): Float64Array {
  const bytes = x.readBytes();
  return new Float64Array(bytes.slice().buffer);
}

function expectGradients(parameters: Parameter[], loss: Parameters<typeof checkGradients>[2]): void {
  const worst = checkGradients(backend, parameters, loss);
  expect(worst, JSON.stringify(worst)).toMatchObject({ error: expect.toSatisfy((e: number) => e < 1e-8) });
}

describe("gradients agree with central differences", () => {
  const x = parameter("x", [5, 6]);
  const head = frozen([4, 6]);

  test("embedding, with repeated ids", () => {
    const ids = ints([3, 0, 3, 1, 3]);
    expectGradients([x], (scope) => score(scope, embedding(scope, ids, x), head));
  });

  test("linear, its weight read twice", () => {
    const w = parameter("w", [6, 6]);
    expectGradients([x, w], (scope) => score(scope, linear(scope, linear(scope, asTensor(scope, x), w), w), head));
  });

  test("rmsNorm, and its input read again by a residual", () => {
    const w = parameter("w", [6]);
    expectGradients([x, w], (scope) => {
      const value = asTensor(scope, x);
      return score(scope, add(scope, value, rmsNorm(scope, value, w, 1e-6)), head);
    });
  });

  test("a value added to itself", () => {
    expectGradients([x], (scope) => {
      const value = asTensor(scope, x);
      return score(scope, add(scope, value, value), head);
    });
  });

  test("siluMul", () => {
    const y = parameter("y", [5, 6]);
    expectGradients([x, y], (scope) => score(scope, siluMul(scope, asTensor(scope, x), asTensor(scope, y)), head));
  });

  test("split and concat, with a part that goes nowhere", () => {
    const y = parameter("y", [5, 8]);
    expectGradients([x, y], (scope) => {
      const [a, , c] = split(scope, asTensor(scope, y), [2, 2, 4]);
      return score(scope, concat(scope, c!, a!), head);
    });
  });

  test.each([true, false])("rope, interleaved %s", (interleave) => {
    const table = outer.from(randoms(7 * 2), [7, 2]);
    const attrs = { heads: 2, headDim: 3, ropeDim: 2, interleave };
    expectGradients([x], (scope) => {
      return score(scope, rope(scope, asTensor(scope, x), table, ints([0, 1, 2, 0, 6]), attrs), head);
    });
  });

  test("attention over packed sequences", () => {
    const attrs = { heads: 2, nopeDim: 2, ropeDim: 2, valueDim: 3, softmaxScale: 0.7 };
    const q = parameter("q", [5, 8], 2);
    const kv = parameter("kv", [5, 10], 2);
    const kRope = parameter("kRope", [5, 2], 2);
    const seqStarts = ints([0, 1, 5]);
    expectGradients([q, kv, kRope], (scope) => {
      const inputs = { q: asTensor(scope, q), kv: asTensor(scope, kv), kRope: asTensor(scope, kRope), seqStarts };
      return score(scope, attention(scope, inputs, attrs), head);
    });
  });

  test("attention of three queries on each head of keys, over packed sequences", () => {
    const attrs = { heads: 3, kvHeads: 1, headDim: 2, softmaxScale: 0.7 };
    const q = parameter("q", [5, 6], 2);
    const [k, v] = [parameter("k", [5, 2], 2), parameter("v", [5, 2], 2)];
    const seqStarts = ints([0, 1, 5]);
    expectGradients([q, k, v], (scope) => {
      const inputs = { q: asTensor(scope, q), k: asTensor(scope, k), v: asTensor(scope, v), seqStarts };
      return score(scope, groupedAttention(scope, inputs, attrs), head);
    });
  });

  test("headLoss, its head shared with the embedding", () => {
    expectGradients([x], (scope) => score(scope, asTensor(scope, x), x));
  });
});

const V2_GREEDY: RouteAttrs = {
  experts: 6,
  topk: 2,
  groups: 1,
  limitedGroups: 1,
  scoreFunc: "softmax",
  groupScore: "none",
  normalize: false,
  routeScale: 1,
};
const ROUTERS: [string, RouteAttrs, boolean][] = [
  ["V2 greedy", V2_GREEDY, false],
  ["V2 group-limited", { ...V2_GREEDY, groups: 3, limitedGroups: 2, groupScore: "max", routeScale: 16 }, false],
  [
    "V3",
    {
      ...V2_GREEDY,
      groups: 3,
      limitedGroups: 2,
      scoreFunc: "sigmoid",
      groupScore: "top2",
      normalize: true,
      routeScale: 2.5,
    },
    true,
  ],
];

describe.each(ROUTERS)("mixture with the %s router", (_, attrs, biased) => {
  const x = parameter("x", [5, 4]);
  const gate = parameter("gate", [6, 4], 2);
  const [w1, w3, w2] = [parameter("w1", [6, 3, 4]), parameter("w3", [6, 3, 4]), parameter("w2", [6, 4, 3])];
  const head = frozen([4, 4]);
  const bias = biased ? new Parameter("bias", outer.from([0.3, -0.4, 0.1, -0.2, 0.2, -0.1], [6]), false) : null;
  const segments = ints([0, 2, 5]);

  test("gradients agree with central differences, the balance loss included", () => {
    expectGradients([x, gate, w1, w3, w2], (scope) => {
      const value = asTensor(scope, x);
      const { idx, weights, scores } = route(scope, linear(scope, value, gate), bias, attrs);
      const balance = balanceLoss(scope, scores, idx, segments, 0.1);
      const main = score(scope, experts(scope, value, { weights, idx }, { w1, w3, w2 }), head);
      return { roots: [balance, ...main.roots], value: () => sum(balance) + main.value() };
    });
  });

  test("fused experts equal one linear SwiGLU per chosen expert", () => {
    using scope = outer.child();
    const value = asTensor(scope, x);
    const { idx, weights } = route(scope, linear(scope, value, gate), bias, attrs);
    const fused = doubles(experts(scope, value, { weights, idx }, { w1, w3, w2 }));
    const choice = new Int32Array(idx.readBytes().slice().buffer);
    const share = doubles(weights);
    const expected = new Float64Array(fused.length);
    for (const [slot, e] of choice.entries()) {
      const one = (p: Parameter): Parameter => new Parameter(p.name, p.value.view(e * 12, p.shape.slice(1)));
      const h = siluMul(scope, linear(scope, value, one(w1)), linear(scope, value, one(w3)));
      const y = doubles(linear(scope, h, one(w2)));
      const token = Math.floor(slot / 2);
      for (let d = 0; d < 4; d++) expected[token * 4 + d]! += share[slot]! * y[token * 4 + d]!;
    }
    for (const [i, value] of fused.entries()) expect(value).toBeCloseTo(expected[i]!, 12);
  });
});

describe("the tape", () => {
  test("frees every saved tensor and gradient", () => {
    const fresh = createReferenceBackend();
    using root = Scope.root(fresh, { dtype: "f64" });
    const w = new Parameter("w", root.from(randoms(16), [4, 4]));
    w.allocateGrad(root);
    const before = fresh.stats().liveBytes;
    {
      using tape = new Tape();
      using scope = root.with({ tape });
      const x = tape.track(scope.from(randoms(8), [2, 4]));
      const targets = scope.from([1, 2], [2], "i32");
      const losses = headLoss(scope, linear(scope, x, w), w, targets, 1);
      expect(tape.backward(scope, [losses]).get(x.storage)?.shape).toEqual([2, 4]);
      expect(tape.savedBytes).toBe(0);
    }
    expect(fresh.stats().liveBytes).toBe(before);
  });

  test("refuses a parameter that was written before backward", () => {
    using root = Scope.root(backend, { dtype: "f64" });
    const w = new Parameter("w", root.from(randoms(16), [4, 4]));
    w.allocateGrad(root);
    using tape = new Tape();
    using scope = root.with({ tape });
    const x = scope.from(randoms(8), [2, 4]);
    const losses = headLoss(scope, linear(scope, x, w), w, scope.from([1, 2], [2], "i32"), 1);
    scope.run("axpy", { x: w.value.view(0, [1]), y: w.value.view(1, [1]) }, { n: 1, scale: 1 });
    expect(() => tape.backward(scope, [losses])).toThrow(/written between forward and backward/);
  });

  test("a tensor used after its scope is a DisposedError", () => {
    const leave = (): Tensor => {
      using scope = outer.child();
      return scope.from([1], [1]);
    };
    expect(() => leave().readBytes()).toThrowErrorMatchingInlineSnapshot(
      `[DisposedError: tensor value: must be live when it is used, got a disposed one; keep it in the scope that outlives its last use]`,
    );
  });
});
