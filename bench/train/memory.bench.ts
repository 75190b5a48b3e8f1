/**
 * The allocator's peak of a training step against the ledger of the operations' rows, and whether it stays flat.
 *
 *     npx tsx bench/train/memory.bench.ts nano [--steps 1000] [--precision f32]
 *
 * Appends one JSON line to bench/results/train-memory.jsonl.
 */

import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { resolveConfig } from "../../src/config/index.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";
import { Trainer, trainingLedger } from "../../src/train/index.ts";
import { randomText } from "../random-text.ts";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { steps: { type: "string", default: "1000" }, precision: { type: "string", default: "f32" } },
});
const preset = positionals[0] ?? "nano";
const config = resolveConfig(preset, { precision: flags.precision });
const ledger = await trainingLedger(config);
const text = randomText(config, 8);
const tokenBytes = new Uint8Array(config.model.vocabSize).fill(1);
const backend = createNativeBackend();
using trainer = new Trainer({
  backend,
  config,
  train: text,
  validation: text,
  tokenBytes,
  now: () => performance.now(),
});

const marks: { step: number; liveBytes: number; peakBytes: number; scratchBytes: number; rssBytes: number }[] = [];
const steps = Number(flags.steps);
for (let step = 1; step <= steps; step++) {
  await trainer.step();
  if (step === 2 || step === Math.ceil(steps / 2) || step === steps) {
    const { liveBytes, peakBytes, scratchBytes } = backend.stats();
    marks.push({ step, liveBytes, peakBytes, scratchBytes, rssBytes: process.memoryUsage.rss() });
  }
}
const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
for (const mark of marks) {
  console.log(
    `step ${mark.step}: live ${mib(mark.liveBytes)}, peak ${mib(mark.peakBytes)}, scratch ${mib(mark.scratchBytes)}, RSS ${mib(mark.rssBytes)}`,
  );
}
const peakOverLedger = marks.at(-1)!.peakBytes / ledger.peak;
console.log(`ledger ${mib(ledger.peak)}; allocator's peak is ${peakOverLedger.toFixed(4)} of it`);
const line = {
  date: new Date().toISOString(),
  preset,
  precision: flags.precision,
  isa: backend.isa,
  ledger,
  marks,
  peakOverLedger,
};
appendFileSync(join(import.meta.dirname, "../results/train-memory.jsonl"), `${JSON.stringify(line)}\n`);
