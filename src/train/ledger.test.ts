import { expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { createNativeBackend } from "../kernels/node.ts";
import { trainingLedger } from "./ledger.ts";
import { Trainer } from "./trainer.ts";

const SHAPES = [
  ["tiny in f32", { precision: "f32" }],
  ["tiny in bf16, four micro-batches", { precision: "bf16", micro_batch_size: 1 }],
] as const;

test.each(SHAPES)("the allocator's peak of %s is the ledger's within 10 %", async (_, settings) => {
  const config = resolveConfig("tiny", settings);
  const ledger = await trainingLedger(config);
  const backend = createNativeBackend();
  const length = 4096;
  const stream = {
    length,
    read: (start: number, count: number) => Int32Array.from({ length: count }, (_, i) => (7 * (start + i)) % 500),
    documentStarts: (from: number) => (from === 0 ? [0] : []),
  };
  const tokenBytes = new Uint8Array(config.model.vocabSize).fill(1);
  const before = backend.stats().liveBytes;
  backend.resetPeak();
  using trainer = new Trainer({ backend, config, train: stream, validation: stream, tokenBytes, now: () => 0 });
  for (let step = 0; step < 3; step++) await trainer.step();
  const peak = backend.stats().peakBytes - before;
  expect(peak / ledger.peak).toBeGreaterThan(0.9);
  expect(peak / ledger.peak).toBeLessThan(1.1);
  expect(ledger.weights + ledger.gradients + ledger.moments + ledger.copies + ledger.activations).toBe(ledger.peak);
});
