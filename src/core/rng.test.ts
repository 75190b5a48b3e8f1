import { expect, test } from "vitest";
import { philox4x32, Rng, streamKey } from "./rng.ts";

const hex = (words: readonly number[]): string => words.map((word) => word.toString(16).padStart(8, "0")).join(" ");

test("philox4x32 gives Random123's vectors", () => {
  const ones = 0xffffffff;
  expect(hex(philox4x32([0, 0, 0, 0], [0, 0]))).toBe("6627e8d5 e169c58d bc57ac4c 9b00dbd8");
  expect(hex(philox4x32([ones, ones, ones, ones], [ones, ones]))).toBe("408f276d 41c83b0e a20bc7c6 6d5451fd");
  expect(hex(philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]))).toBe(
    "d16cfe09 94fdcceb 5001e420 24126ea1",
  );
});

test("a stream's key depends on every bit of the seed and on the whole name", () => {
  const keys = [
    streamKey(0, ""),
    streamKey(1, ""),
    streamKey(2 ** 40, ""),
    streamKey(0, "a"),
    streamKey(0, "a\0"),
    streamKey(0, "init.layers.0"),
    streamKey(0, "init.layers.1"),
  ].map(hex);
  expect(new Set(keys).size).toBe(keys.length);
  expect(hex(streamKey(0, ""))).toBe("6627e8d5 e169c58d");
});

test("a stream goes on from a saved state as if it had never stopped", () => {
  const rng = new Rng(42, "data");
  for (let i = 0; i < 5; i++) rng.nextUint32();
  const { seed, stream, position } = rng.state;
  const resumed = new Rng(seed, stream, position);
  const next = (from: Rng): number[] => Array.from({ length: 9 }, () => from.nextUint32());
  expect(next(resumed)).toEqual(next(rng));
});

test("uniform numbers lie in [0, 1) with mean 1/2 and variance 1/12", () => {
  const rng = new Rng(1, "uniform");
  const count = 20_000;
  const values = Array.from({ length: count }, () => rng.uniform());
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count;
  expect(Math.min(...values)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...values)).toBeLessThan(1);
  // Five standard errors: sd(mean) = √(1/12/n), sd(variance) ≈ √(1/180/n).
  expect(Math.abs(mean - 1 / 2)).toBeLessThan(5 * Math.sqrt(1 / 12 / count));
  expect(Math.abs(variance - 1 / 12)).toBeLessThan(5 * Math.sqrt(1 / 180 / count));
});

test("a seed that is no integer is refused", () => {
  expect(() => streamKey(0.5, "x")).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: seed: must be an integer from 0 to 9007199254740991, got 0.5]`,
  );
});
