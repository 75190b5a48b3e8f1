import * as fc from "fast-check";
import { expect, test } from "vitest";
import { createPermutation } from "./permutation.ts";

const seeds = fc.nat({ max: Number.MAX_SAFE_INTEGER });

test("every number below the size comes exactly once, for any size, seed and round", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 600 }), seeds, fc.nat(), (size, seed, round) => {
      const permute = createPermutation(size, seed, round);
      const values = new Set(Array.from({ length: size }, (_, i) => permute(i)));
      expect(values.size).toBe(size);
      for (const value of values) expect(Number.isInteger(value) && value >= 0 && value < size).toBe(true);
    }),
  );
});

test("numbers of a size past 2³² stay inside it and distinct", () => {
  const size = 2 ** 40 + 12_345;
  const permute = createPermutation(size, 7, 0);
  const values = Array.from({ length: 1000 }, (_, i) => permute(size - 1 - i));
  expect(new Set(values).size).toBe(1000);
  expect(values.every((value) => value >= 0 && value < size)).toBe(true);
  expect(Math.max(...values)).toBeGreaterThan(2 ** 39);
});

test("seed and round each change the order", () => {
  const order = (seed: number, round: number): string => {
    const permute = createPermutation(100, seed, round);
    return Array.from({ length: 100 }, (_, i) => permute(i)).join(" ");
  };
  expect(new Set([order(1, 0), order(2, 0), order(1, 1), order(1 + 2 ** 32, 0), order(1, 2 ** 32)]).size).toBe(5);
  expect(order(3, 4)).toBe(order(3, 4));
});

test("neighbours are scattered: places and values do not correlate", () => {
  const size = 10_000;
  const permute = createPermutation(size, 5, 2);
  const mean = (size - 1) / 2;
  let covariance = 0;
  for (let i = 0; i < size; i++) covariance += (i - mean) * (permute(i) - mean);
  const correlation = covariance / ((size * (size ** 2 - 1)) / 12);
  // For a random permutation the standard deviation is 1 / √(size - 1) = 0.01.
  expect(Math.abs(correlation)).toBeLessThan(0.05);
});
