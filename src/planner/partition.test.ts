import { describe, expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { chunkSizes, leadingStages, stagesOf } from "./partition.ts";
import { modelShape, withoutMtp } from "./shape.ts";

const shapeOf = (name: string) => modelShape(resolveConfig(name).model);
const v3 = shapeOf("deepseek-v3");

describe("layers of V3 are dealt out as Megatron-Bridge does", () => {
  test.each([
    [4, [16, 16, 16, 13]],
    [8, [8, 8, 8, 8, 8, 8, 8, 5]],
    [16, [...Array.from({ length: 15 }, () => 4), 1]],
    [32, [1, ...Array.from({ length: 30 }, () => 2), 0]],
  ])("over %i chunks", (chunks, sizes) => {
    expect(chunkSizes(v3, chunks)).toEqual(sizes);
  });
});

test("every chunk but the last has a layer, and none is lost, for any number of chunks", () => {
  for (const shape of [v3, withoutMtp(v3), shapeOf("deepseek-v2-lite"), shapeOf("tiny")]) {
    for (let chunks = 1; chunks <= shape.nLayers; chunks++) {
      const sizes = chunkSizes(shape, chunks);
      expect(sizes.reduce((a, b) => a + b)).toBe(shape.nLayers);
      expect(Math.min(...sizes.slice(0, -1), Infinity)).toBeGreaterThanOrEqual(1);
      expect(sizes.at(-1)).toBeGreaterThanOrEqual(0);
    }
  }
});

test("the stages hold every layer once, and twice with DualPipe", () => {
  const held = (schedule: "1f1b" | "dualpipe" | "dualpipev") =>
    stagesOf(v3, { schedule, pp: 8, vp: 1 }, 64)
      .map((stage) => stage.held)
      .reduce((a, b) => a.map((n, i) => n + b[i]!));
  expect(held("1f1b")).toEqual([3, 58, 1]);
  expect(held("dualpipev")).toEqual([3, 58, 1]);
  expect(held("dualpipe")).toEqual([6, 116, 2]);
});

test("every rank of DualPipe keeps the activations of p + 1 micro-batches", () => {
  const even = { ...withoutMtp(v3), nLayers: 64, layers: Array.from({ length: 64 }, () => 1) };
  for (const stage of stagesOf(even, { schedule: "dualpipe", pp: 16, vp: 1 }, 120)) {
    expect(stage.live[1]).toBe(17 * 4);
  }
});

test("leading stages are those that no other exceeds in everything", () => {
  const stages = stagesOf(v3, { schedule: "1f1b", pp: 16, vp: 1 }, 120);
  expect(leadingStages(stages).map(({ index }) => index)).toEqual([0, 1, 15]);
});
