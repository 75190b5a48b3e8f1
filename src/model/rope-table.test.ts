import { describe, expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { ropeFrequencies, ropeTable } from "./rope-table.ts";

const V3 = resolveConfig("deepseek-v3").model;

/** Relative distance of two positive numbers. */
function distance(a: number, b: number): number {
  return Math.abs(a / b - 1);
}

describe("frequencies of the released models", () => {
  test.each([
    [0, 1],
    [10, 0.0562341325],
    [11, 0.0390069266],
    [16, 0.0055],
    [22, 1.77827941e-4],
    [23, 3.33380358e-5],
    [31, 3.33380358e-6],
  ])("pair %i of V2 and V3 turns by %f radians per position", (pair, expected) => {
    for (const name of ["deepseek-v2-lite", "deepseek-v2", "deepseek-v3"]) {
      expect(distance(ropeFrequencies(resolveConfig(name).model)[pair]!, expected)).toBeLessThan(2e-9);
    }
  });

  test.each([
    [15, 160000 ** (-30 / 64)],
    [16, 0.002265625],
    [20, 2.96977778e-4],
    [24, 1.953125e-5],
    [31, 5.68052904e-7],
  ])("pair %i with theta 160000, factor 16 and original length 65536 turns by %f radians", (pair, expected) => {
    const config = { ...V3, ropeTheta: 160000, ropeFactor: 16, originalSeqLen: 65536 };
    expect(distance(ropeFrequencies(config)[pair]!, expected)).toBeLessThan(2e-9);
  });
});

test("factor 1 is plain RoPE, whatever the other YaRN settings say", () => {
  const plain = Float64Array.from({ length: 32 }, (_, i) => 10000 ** (-i / 32));
  for (const [i, frequency] of ropeFrequencies({ ...V3, ropeFactor: 1, originalSeqLen: 1 }).entries()) {
    expect(distance(frequency, plain[i]!)).toBeLessThan(1e-14);
  }
});

test("bounds that fall together still part slowed from kept pairs", () => {
  // With 6 < 2π both bounds are 0: pair 0 stays and all others are slowed.
  const config = { ...V3, originalSeqLen: 6 };
  const plain = ropeFrequencies({ ...config, ropeFactor: 1 });
  const slowed = ropeFrequencies(config);
  expect(slowed[0]).toBe(1);
  for (let i = 1; i < 32; i++) expect(distance(slowed[i]!, plain[i]! / 40)).toBeLessThan(1e-14);
});

test("a row of the table holds the cosines of its position, then the sines", () => {
  const frequencies = ropeFrequencies(V3);
  const table = ropeTable(V3, 5000);
  expect(table).toHaveLength(5000 * 64);
  expect(Array.from(table.subarray(0, 64))).toEqual([...Array(32).fill(1), ...Array(32).fill(0)]);
  for (const [i, frequency] of frequencies.entries()) {
    expect(table[4999 * 64 + i]).toBe(Math.cos(4999 * frequency));
    expect(table[4999 * 64 + 32 + i]).toBe(Math.sin(4999 * frequency));
  }
});

test("unequal mscale keys scale cosines and sines by f(mscale) / f(mscaleAllDim)", () => {
  const { model } = resolveConfig("deepseek-v3", { mscale: 1, mscale_all_dim: 0.5 });
  const expected = (0.1 * Math.log(40) + 1) / (0.05 * Math.log(40) + 1);
  expect(ropeTable(model, 1)[0]).toBeCloseTo(expected, 14);
  expect(ropeTable(V3, 1)[0]).toBe(1);
});

test.each([
  ["deepseek-v2-lite", 0.1147213868],
  ["deepseek-v2", 0.1147213868],
  ["deepseek-v3", 0.1352337789],
])("the softmax scale of %s is %f", (name, expected) => {
  expect(resolveConfig(name).model.softmaxScale).toBeCloseTo(expected, 10);
  expect(resolveConfig(name, { rope_factor: 1 }).model.softmaxScale).toBeCloseTo(0.0721687836, 10);
});
