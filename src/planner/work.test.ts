import { describe, expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { modelShape, withAdapters } from "./shape.ts";
import { decodeFlopsPerToken, explainWork, flopsPerToken } from "./work.ts";

const shapeOf = (name: string) => modelShape(resolveConfig(name).model);
const v3 = shapeOf("deepseek-v3");
const giga = (n: number): number => Math.round(n / 1e7) / 100;

describe("FLOPs of DeepSeek-V3 per token at 4,096", () => {
  test("in training are 250.46 G causal, 260.65 G with MTP", () => {
    expect(giga(flopsPerToken(v3, { seqLen: 4096, mtp: false }).training)).toBe(250.46);
    expect(giga(flopsPerToken(v3, { seqLen: 4096 }).training)).toBe(260.65);
  });

  test("without the causal half are 281.16 G and 291.85 G", () => {
    expect(giga(flopsPerToken(v3, { seqLen: 4096, mtp: false, causal: false }).training)).toBe(281.16);
    expect(giga(flopsPerToken(v3, { seqLen: 4096, causal: false }).training)).toBe(291.85);
  });

  test("are three times the forward work when everything is trained", () => {
    const { forward, training } = flopsPerToken(v3, { seqLen: 4096 });
    // The router's bias takes part in forward and has no gradient.
    expect(3 * forward - training).toBe(2 * 59 * 256);
  });

  test("rise by one forward with full recomputation, by the up-projections with selective", () => {
    const full = flopsPerToken(v3, { seqLen: 4096, mtp: false, fullRecompute: 1 });
    const head = 2 * (129_280 * 7168 + 7168);
    expect(full.recompute).toBe(full.forward - head);
    const up = 2 * 128 * (1536 * 192 + 512 * 256);
    expect(flopsPerToken(v3, { seqLen: 4096, mtp: false, selectiveRecompute: true }).recompute).toBe(61 * up);
  });
});

test("LoRA skips the gradients of frozen weights", () => {
  const targets = ["attn.wq_a", "attn.wq_b", "attn.wkv_a", "attn.wkv_b", "attn.wo"];
  const adapted = withAdapters(v3, { rank: 16, targets });
  const count = adapted.kinds
    .map(({ parameters }) => parameters.filter(({ kind }) => kind === "trainable").reduce((n, p) => n + p.elements, 0))
    .reduce((sum, n, i) => sum + n * [3, 58, 0][i]!, 0);
  expect(count).toBe(97_006_592);
  const settings = { seqLen: 4096, mtp: false };
  const base = flopsPerToken(v3, settings);
  const core = explainWork(v3, settings, "flops.core").value;
  // Two thirds of the products, the whole core, six FLOPs for each adapter weight.
  expect(flopsPerToken(adapted, settings).training).toBe(2 * base.forward + core + 6 * count);
});

test("a decoded token of V3 costs what the absorbed and the naive form cost", () => {
  const rounded = (n: number): number => Math.round(n / 1e8) / 10;
  expect([1, 4096, 32_768, 131_072].map((context) => rounded(decodeFlopsPerToken(v3, context)))).toEqual([
    73.3, 142.8, 630, 2300.2,
  ]);
  expect([1, 4096, 32_768].map((context) => rounded(decodeFlopsPerToken(v3, context, false)))).toEqual([
    73.3, 93.7, 237,
  ]);
});

test("the indexer of V3.2 scores every position, learns at the chosen ones and leaves 2,048 to attention", () => {
  const v32 = modelShape(resolveConfig("deepseek-v3.2").model);
  const linear = 2 * (38_403_822_336 - 129_280 * 7168);
  const index = 61 * 2 * 64 * 128;
  const core = 61 * 2 * 128 * 1088 * 2048;
  expect(decodeFlopsPerToken(v32, 131_072)).toBe(linear + core + index * 131_072);
  expect(decodeFlopsPerToken(v32, 1024)).toBe(linear + core / 2 + index * 1024);
  const trained = (seqLen: number, name: string): number => explainWork(v32, { seqLen, mtp: false }, name).value;
  expect(trained(4096, "flops.index")).toBe(index * 2048);
  expect(trained(4096, "flops.index_more")).toBe(index * (2 * 1536 - 2048));
  expect(trained(1024, "flops.index_more")).toBe(index * 512);
  const whole = 61 * 2 * 128 * 320 * 2048;
  // The selection biases are active and take no gradient.
  const all = 3 * (linear + whole) - 2 * 14_848;
  expect(trained(4096, "flops.training")).toBe(all + index * (2048 + 2 * 1536));
  expect(() => flopsPerToken(v32, { seqLen: 4096, causal: false })).toThrow(/causal: must be true .* indexer/);
  const frozen = withAdapters(v32, { rank: 16, targets: ["attn.wo"] });
  expect(explainWork(frozen, { seqLen: 4096, mtp: false }, "flops.index_more").value).toBe(-index * 2048);
});

test("a model small enough to count by hand", () => {
  const { model } = resolveConfig("tiny");
  const shape = modelShape(model);
  // d 32, 2 heads of 8 + 8 and 8, ranks 16 and 16, dense FFN 64, experts of 16: 8 routed, 2 active, 1 shared.
  const attention = 16 * 32 + 16 + 32 * 16 + 24 * 32 + 16 + 32 * 16 + 32 * 16;
  const dense = attention + 3 * 32 * 64 + 64;
  const moe = attention + 3 * 3 * 32 * 16 + 8 * 32 + 8 + 64;
  const core = 2 * 2 * (16 + 8) * 32;
  const forward = 2 * (dense + moe + 32 + 512 * 32) + 2 * core;
  expect(flopsPerToken(shape, { seqLen: 64, mtp: false }).forward).toBe(forward);
});
