/**
 * What the measured peaks of the machine would allow a training step, by class of operation, beside what was measured.
 *
 *     npx tsx bench/train/limit.bench.ts
 *
 * Computes, and times nothing: work by the operations' rows, as MFU counts it, for the settings of
 * bench/train/peers.bench.ts; peaks of the last line of roof.jsonl; steps of the last lines of train-peers.jsonl. Writes
 * bench/results/limit.md.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { resolveConfig, type ResolvedConfig } from "../../src/config/index.ts";
import { TrainBatches } from "../../src/data/index.ts";
import { createPlanningBackend } from "../../src/kernels/index.ts";
import { DeepSeekModel, allocateParameters, ropeTable } from "../../src/model/index.ts";
import { Profiler, Scope, Tape } from "../../src/tensor/index.ts";
import { uploadBatch } from "../../src/train/device-batch.ts";
import { createRandomTrainer, randomText } from "../random-text.ts";
import type { RateRow } from "../peer.ts";

const RESULTS = join(import.meta.dirname, "..", "results");

function linesOf<T>(name: string): T[] {
  const lines = readFileSync(join(RESULTS, `${name}.jsonl`), "utf8")
    .trim()
    .split("\n");
  return lines.map((line) => JSON.parse(line) as T);
}

interface Peaks {
  readonly date: string;
  readonly f32: number;
  /** f32 products, which on tiles are six of bf16. */
  readonly f32Products: number;
  readonly bf16: number;
  readonly bytesPerSec: number;
}

function measuredPeaks(): Peaks {
  const { date, rows } = linesOf<{ date: string; rows: { name: string; value: number }[] }>("roof").at(-1)!;
  const peak = (name: string): number => (rows.find((row) => row.name === name)?.value ?? 0) * 1e9;
  const bf16 = Math.max(peak("bf16 dot"), peak("bf16 tiles"));
  const f32 = peak("f32 multiply-add");
  const f32Products = Math.max(f32, peak("bf16 tiles") / 6);
  return { date, f32, f32Products, bf16, bytesPerSec: peak("memory read") };
}

/** Products of matrices, which a bf16 step takes in bf16; all else is f32 in both. */
const PRODUCTS: Readonly<Record<string, string>> = {
  linear: "projections and dense layers",
  experts: "routed experts",
  attention: "attention",
  headLoss: "head and loss",
};
const ELEMENTWISE = "norms, rotation, gates, routing";

/** Floating point operations of a step by class: forward, backward, no recomputation. */
function flopsByClass(config: ResolvedConfig): Map<string, number> {
  const { model, training } = config;
  const profiler = new Profiler(() => 0);
  using tape = new Tape();
  using root = Scope.root(createPlanningBackend(), { compute: "f32", profiler });
  const parameters = allocateParameters(root, model);
  for (const parameter of parameters.trainable) parameter.allocateGrad(root);
  using scope = root.with({ tape });
  const tokenBytes = new Uint8Array(model.vocabSize);
  const text = randomText(config, 1);
  const { seqLen, microBatchSize: batchSize, seed } = training;
  const batch = new TrainBatches(text, { seqLen, batchSize, tokenBytes, mtpDepth: 0, seed }).next();
  const table = scope.from(ropeTable(model, seqLen), [seqLen, model.qkRopeHeadDim]);
  const routing = { balance: null, onRoute: (): void => undefined };
  const scales = { main: 1, mtp: [] };
  const { main } = new DeepSeekModel(model, parameters).losses(
    scope,
    uploadBatch(scope, batch, table),
    scales,
    routing,
  );
  tape.backward(scope, [main]);
  const classes = new Map<string, number>();
  for (const { op, flops } of profiler.rows()) {
    const name = PRODUCTS[op.replace(" backward", "")] ?? ELEMENTWISE;
    classes.set(name, (classes.get(name) ?? 0) + flops * training.gradAccumSteps);
  }
  return classes;
}

/** Reads value, gradient and both moments of every parameter, and writes all but the gradient, in f32. */
function optimizerBytes({ model }: ResolvedConfig): number {
  using root = Scope.root(createPlanningBackend(), { compute: "f32" });
  const { trainable } = allocateParameters(root, model);
  return 7 * 4 * trainable.reduce((sum, { value }) => sum + value.size, 0);
}

interface PeerLine {
  readonly date: string;
  readonly preset: string;
  readonly table: readonly RateRow[];
}

const ms = (seconds: number): string => (1000 * seconds).toFixed(seconds < 0.1 ? 1 : 0);

async function section(preset: string, peaks: Peaks): Promise<string> {
  const config = resolveConfig(preset, { n_mtp_layers: 0, seq_balance_alpha: 0 });
  const classes = flopsByClass(config);
  using trainer = createRandomTrainer(createPlanningBackend(), config, 1);
  const { flops, tokens } = await trainer.step();
  const counted = [...classes.values()].reduce((sum, value) => sum + value, 0);
  if (counted !== flops) throw new Error(`the classes must have the ${flops} operations of a step, got ${counted}`);
  const rows = [...classes].map(([name, work]) => {
    const size = `${(work / 1e9).toFixed(2)} GFLOP`;
    const plain = work / peaks.f32;
    return name === ELEMENTWISE
      ? { name, size, f32: plain, bf16: plain }
      : { name, size, f32: work / peaks.f32Products, bf16: work / peaks.bf16 };
  });
  const bytes = optimizerBytes(config);
  const update = bytes / peaks.bytesPerSec;
  rows.push({ name: "AdamW, by memory", size: `${(bytes / 1e9).toFixed(2)} GB`, f32: update, bf16: update });
  const total = (key: "f32" | "bf16"): number => rows.reduce((sum, row) => sum + row[key], 0);
  const peers = linesOf<PeerLine>("train-peers").findLast((line) => line.preset === preset);
  const limits = { f32: total("f32"), bf16: total("bf16") };
  return [
    `## ${preset}: ${tokens} tokens a step`,
    "",
    "| operations | work | f32, ms | bf16, ms |",
    "| --- | ---: | ---: | ---: |",
    ...rows.map((row) => `| ${row.name} | ${row.size} | ${ms(row.f32)} | ${ms(row.bf16)} |`),
    `| **limit of a step** | ${(flops / 1e9).toFixed(2)} GFLOP | ${ms(limits.f32)} | ${ms(limits.bf16)} |`,
    ...(peers === undefined ? [] : ["", ...measured(peers, tokens, limits)]),
  ].join("\n");
}

function measured({ date, table }: PeerLine, tokens: number, limits: Readonly<Record<string, number>>): string[] {
  return [
    `| measured ${date.slice(0, 10)} | a step, ms | limit / measured |`,
    "| --- | ---: | ---: |",
    ...table.map(({ name, tokensPerSec }) => {
      const seconds = tokens / tokensPerSec;
      const limit = limits[/\bbf16\b/.test(name) ? "bf16" : "f32"]!;
      return `| ${name} | ${ms(seconds)} | ${((100 * limit) / seconds).toFixed(0)} % |`;
    }),
  ];
}

const peaks = measuredPeaks();
const gflops = (value: number): string => `${(value / 1e9).toFixed(0)} GFLOP/s`;
const sections = [];
for (const preset of ["nano", "lite-slice"]) sections.push(await section(preset, peaks));
const page = `<!-- Made by \`npx tsx bench/train/limit.bench.ts\`; run it again after roof.jsonl or train-peers.jsonl. -->

# The limit of a training step

The work of a step by class of operation, over the peaks that were measured on ${peaks.date.slice(0, 10)}: f32 ${gflops(peaks.f32)}, f32
products in three bf16 parts ${gflops(peaks.f32Products)}, bf16 ${gflops(peaks.bf16)}, memory ${(peaks.bytesPerSec / 1e9).toFixed(0)} GB/s. PyTorch's work is the same.
It is a limit and no forecast: traffic between memory and caches, which holds bf16 products back long before their peak,
is counted for AdamW alone. No prediction modules and no balance terms, as in \`train-peers.jsonl\`. Peaks and steps come
from different hours of a shared machine.

${sections.join("\n\n")}
`;
writeFileSync(join(RESULTS, "limit.md"), page);
console.log(page);
