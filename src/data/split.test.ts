import * as fc from "fast-check";
import { expect, test } from "vitest";
import { ConfigError } from "../core/errors.ts";
import { createSplit } from "./split.ts";

const heldOut = (fraction: number, documents: number): number[] =>
  Array.from({ length: documents }, (_, i) => i).filter(createSplit(fraction));

test("any two or more documents give both splits at least one", () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 300 }), fc.double({ min: 0.001, max: 0.5, noNaN: true }), (n, fraction) => {
      const count = heldOut(fraction, n).length;
      expect(count).toBeGreaterThan(0);
      expect(count).toBeLessThan(n);
    }),
  );
});

test("one in twenty documents is held out, at a different place in each group of twenty", () => {
  const numbers = heldOut(0.05, 2000);
  expect(numbers.map((n) => Math.floor(n / 20))).toEqual(Array.from({ length: 100 }, (_, i) => i));
  expect(new Set(numbers.map((n) => n % 20)).size).toBeGreaterThan(15);
});

test("the choice never changes between versions", () => {
  expect(heldOut(0.05, 120)).toMatchInlineSnapshot(`
    [
      1,
      24,
      45,
      70,
      92,
      102,
    ]
  `);
});

test("a fraction outside its range is refused", () => {
  expect(() => createSplit(0)).toThrow(ConfigError);
  expect(() => createSplit(0.6)).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: validation_fraction: must be above 0 and at most 0.5, got 0.6]`,
  );
});
