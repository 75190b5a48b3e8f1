import { expect, test } from "vitest";
import { decodeInt8Rows, encodeInt8Rows, int8Groups } from "./int8-rows.ts";
import { Rng } from "./rng.ts";

test("a value comes back within half a step of its own row, the largest exactly", () => {
  const rng = new Rng(1, "int8");
  const columns = 70;
  const values = Float32Array.from({ length: 5 * columns }, (_, i) => (2 * rng.uniform() - 1) * 10 ** (i / columns));
  const { weight, scales } = encodeInt8Rows(values, columns);
  const back = new Float32Array(values.length);
  decodeInt8Rows(new Uint8Array(weight.buffer), scales, back);
  for (let row = 0; row < 5; row++) {
    const own = values.subarray(row * columns, (row + 1) * columns);
    const largest = Math.max(...own.map(Math.abs));
    expect(scales[row]).toBe(Math.fround(largest / 127));
    own.forEach((value, i) => expect(Math.abs(back[row * columns + i]! - value)).toBeLessThan(0.5001 * scales[row]!));
    expect(Math.max(...weight.subarray(row * columns, (row + 1) * columns).map(Math.abs))).toBe(127);
  }
});

test("a row of zeros has scale 1, numbers too small for a scale become zeros", () => {
  const { weight, scales } = encodeInt8Rows(Float32Array.of(0, 0, 1e-45, -1e-45, 254, -254), 2);
  expect([...weight]).toEqual([0, 0, 0, 0, 127, -127]);
  expect([...scales]).toEqual([1, 1, 2]);
});

test("scales are by row or by group of columns, of each matrix of a stack", () => {
  expect(int8Groups([6, 8], [6])).toBe(1);
  expect(int8Groups([6, 8], [6, 1])).toBe(1);
  expect(int8Groups([6, 8], [6, 4])).toBe(4);
  expect(int8Groups([3, 6, 8], [3, 6, 2])).toBe(2);
  expect(int8Groups([3, 6, 8], [3, 6])).toBe(1);
  for (const other of [[8], [1, 6], [6, 3], [6, 0], [6, 1, 1], [3, 6], []]) {
    expect(int8Groups([6, 8], other), String(other)).toBeUndefined();
  }
});
