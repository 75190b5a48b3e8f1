import { describe, expect, test } from "vitest";
import { createReferenceBackend } from "../kernels/index.ts";
import { Parameter, Scope } from "../tensor/index.ts";
import { AdamW } from "./index.ts";

const CONFIG = { beta1: 0.9, beta2: 0.95, adamEps: 1e-8, weightDecay: 0.1 };
const START = [0.5, -1.25, 2];
/** Gradients of three steps; the second element's changes its sign, the third's is 0 at first. */
const GRADIENTS = [
  [0.3, -2, 0],
  [0.1, 4, 1e-3],
  [-0.7, 0.5, 1e-3],
];

type Update = { lr: number; gradScale: number };
const UPDATES: Update[] = [
  { lr: 0.01, gradScale: 1 },
  { lr: 0.02, gradScale: 0.25 },
  { lr: 0.005, gradScale: 1 },
];

/** The numbers of one element by the paper's algorithm, step after step. */
function byHand(start: number, gradients: readonly number[], decay: number): { p: number; m: number; v: number }[] {
  let [p, m, v] = [start, 0, 0];
  return gradients.map((raw, i) => {
    const { lr, gradScale } = UPDATES[i]!;
    const g = raw * gradScale;
    m = 0.9 * m + 0.1 * g;
    v = 0.95 * v + 0.05 * g * g;
    const mHat = m / (1 - 0.9 ** (i + 1));
    const vHat = v / (1 - 0.95 ** (i + 1));
    p = p - lr * decay * p - (lr * mHat) / (Math.sqrt(vHat) + 1e-8);
    return { p, m, v };
  });
}

function doubles(bytes: Uint8Array): number[] {
  return Array.from(new Float64Array(bytes.slice().buffer));
}

function parameterOf(scope: Scope, name: string): Parameter {
  const parameter = new Parameter(name, scope.from(START, [START.length]));
  parameter.allocateGrad(scope);
  return parameter;
}

describe.each([
  ["decays", true],
  ["is not decayed", false],
])("a parameter that %s", (_, decay) => {
  test("takes the steps of AdamW as computed by hand", () => {
    using scope = Scope.root(createReferenceBackend(), { dtype: "f64" });
    const parameter = parameterOf(scope, "w");
    const optimizer = new AdamW(scope, [{ parameter, decay }], CONFIG);
    const expected = START.map((start, i) =>
      byHand(
        start,
        GRADIENTS.map((g) => g[i]!),
        decay ? 0.1 : 0,
      ),
    );
    for (const [i, gradient] of GRADIENTS.entries()) {
      parameter.clearGrad();
      parameter.gradTarget().tensor.write(Float64Array.from(gradient));
      optimizer.step(scope, { step: i + 1, ...UPDATES[i]! });
      const { m, v } = optimizer.moments[0]!;
      for (const [key, tensor] of [
        ["p", parameter.value],
        ["m", m],
        ["v", v],
      ] as const) {
        for (const [e, value] of doubles(tensor.readBytes()).entries()) {
          expect(Math.abs(value - expected[e]![i]![key]), `${key}[${e}] after step ${i + 1}`).toBeLessThan(1e-15);
        }
      }
    }
  });
});

test("a parameter that no gradient reached is left alone, decay and moments included", () => {
  using scope = Scope.root(createReferenceBackend(), { dtype: "f64" });
  const [reached, other] = [parameterOf(scope, "reached"), parameterOf(scope, "other")];
  const both = [reached, other].map((parameter) => ({ parameter, decay: true }));
  const optimizer = new AdamW(scope, both, CONFIG);
  reached.gradTarget().tensor.write(Float64Array.from([1, 1, 1]));
  optimizer.step(scope, { step: 1, lr: 0.1, gradScale: 1 });
  expect(doubles(other.value.readBytes())).toEqual(START);
  expect(doubles(optimizer.moments[1]!.m.readBytes())).toEqual([0, 0, 0]);
  expect(doubles(reached.value.readBytes())).not.toEqual(START);
});

test("the bf16 copy is the rounded new value", () => {
  using scope = Scope.root(createReferenceBackend());
  const parameter = parameterOf(scope, "w");
  parameter.copy = scope.empty([3], "bf16");
  parameter.gradTarget().tensor.write(Float32Array.from([1, -1, 1]));
  new AdamW(scope, [{ parameter, decay: true }], CONFIG).step(scope, { step: 1, lr: 0.1, gradScale: 1 });
  const values = new Float32Array(parameter.value.readBytes().slice().buffer);
  const copy = new Uint16Array(parameter.copy.readBytes().slice().buffer);
  for (const [i, value] of values.entries()) {
    const rounded = new Float32Array(Uint32Array.of(copy[i]! * 0x10000).buffer)[0]!;
    expect(Math.abs(rounded - value)).toBeLessThanOrEqual(Math.abs(value) * 2 ** -8);
    expect(rounded).not.toBe(START[i]);
  }
});
