/**
 * The allocator's peak of a training step against the ledger of the operations' rows, whether it stays flat, and what the
 * whole process takes beyond it. Runs the built library in plain Node, since a compiler in the process would count too.
 *
 *     npm run build && node bench/train/memory.bench.mjs nano [--steps 1000] [--precision bf16]
 *
 * Appends one JSON line to bench/results/train-memory.jsonl.
 */

import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { resolveConfig } from "fathom/config";
import { createNativeBackend } from "fathom/kernels/node";
import { Trainer, trainingLedger } from "fathom/train";
import { keepYoungGenerationSmall } from "fathom/train/node";

const startRssBytes = process.memoryUsage.rss();
const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { steps: { type: "string", default: "1000" }, precision: { type: "string" } },
});
const preset = positionals[0] ?? "nano";
const config = resolveConfig(preset, flags.precision === undefined ? {} : { precision: flags.precision });
const { model, training } = config;
const ledger = await trainingLedger(config);

/** One long document; what its tokens are changes no size. */
const text = {
  length: 32 * training.seqLen,
  read: (/** @type {number} */ start, /** @type {number} */ count) =>
    Int32Array.from({ length: count }, (_, i) => ((start + i) * 7919) % model.vocabSize),
  documentStarts: (/** @type {number} */ from) => (from === 0 ? [0] : []),
};
const tokenBytes = new Uint8Array(model.vocabSize).fill(1);
const backend = createNativeBackend();
// As `fathom train` does.
keepYoungGenerationSmall();
const now = () => performance.now();
const trainer = new Trainer({ backend, config, train: text, validation: text, tokenBytes, now });

const marks = [];
const steps = Number(flags.steps);
for (let step = 1; step <= steps; step++) {
  await trainer.step();
  if (step === 2 || step === Math.ceil(steps / 2) || step === steps) {
    const { rss: rssBytes, heapTotal: heapBytes } = process.memoryUsage();
    marks.push({ step, ...backend.stats(), heapBytes, rssBytes });
  }
}
const mib = (/** @type {number} */ bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
for (const { step, liveBytes, peakBytes, scratchBytes, heapBytes, rssBytes } of marks) {
  const sizes = {
    live: liveBytes,
    peak: peakBytes,
    scratch: scratchBytes,
    "JavaScript heap": heapBytes,
    RSS: rssBytes,
  };
  const words = Object.entries(sizes).map(([name, bytes]) => `${name} ${mib(bytes)}`);
  console.log(`step ${step}: ${words.join(", ")}`);
}
const { peakBytes = 0, rssBytes = 0 } = marks.at(-1) ?? {};
const peakOverLedger = peakBytes / ledger.peak;
const beyondPeakBytes = rssBytes - peakBytes;
console.log(`ledger ${mib(ledger.peak)}; the allocator's peak is ${peakOverLedger.toFixed(4)} of it`);
console.log(
  `RSS is the peak + ${(beyondPeakBytes / 1e6).toFixed(1)} MB, of which Node itself took ${(startRssBytes / 1e6).toFixed(1)} MB before the first step`,
);
const line = {
  date: new Date().toISOString(),
  preset,
  precision: training.precision,
  isa: backend.isa,
  ledger,
  startRssBytes,
  marks,
  peakOverLedger,
  beyondPeakBytes,
};
const file = join(import.meta.dirname, "..", "results", "train-memory.jsonl");
appendFileSync(file, `${JSON.stringify(line)}\n`);
trainer[Symbol.dispose]();
