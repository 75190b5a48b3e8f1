/** How plans are printed: sizes in GB and GiB, times, and where a number comes from. */

import {
  BILL_NAMES,
  costOf,
  energyOf,
  explainBill,
  findLabelled,
  MEMORY_PARTS,
  summarise,
  type Evaluation,
  type LedgerLine,
  type Quantity,
  type SearchCounts,
  type TrainingSummary,
} from "../planner/index.ts";
import { ConfigError } from "../core/errors.ts";
import { digits, print, size, snake } from "./output.ts";
import type { PlanJob } from "./plan-job.ts";
import { COMMON_LABELS, type Labels } from "./plan-numbers.ts";
import { formatTable } from "./table.ts";

const gb = (bytes: number): string => (bytes / 1e9).toFixed(2);
const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(2);
export const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;

/** What is planned, with what is assumed. */
export function printHead({ name, device, world, globalBatchSize, seqLen, evaluator, notes }: PlanJob): void {
  const { recipe, efficiency, margin, shape } = evaluator.job;
  const format = device.peaks[recipe.compute] === undefined ? "fp16" : recipe.compute;
  const mtp = shape.nMtpLayers > 0 ? ", MTP trained" : "";
  print(
    `${name} on ${digits(world)} × ${device.title}: train, ${recipe.name}, ${globalBatchSize} × ${seqLen} tokens a step${mtp}`,
  );
  print(`memory      ${margin} of ${size(device.memoryBytes)} may be planned: ${size(evaluator.limitBytes)}`);
  const kind = efficiency.calibrated ? "calibrated" : "assumed";
  print(
    `efficiency  ${percent(efficiency.computeShare)} of the dense ${format} peak, at most ${percent(efficiency.hiddenShare)} of communication hidden; ${kind} on ${efficiency.basis}`,
  );
  for (const note of notes) print(`note        ${note}`);
}

/** What became of every layout of the grid. */
export function printCounts(counts: SearchCounts, best: number): void {
  const illegal = Object.entries(counts.illegal);
  const sum = illegal.reduce((total, [, n]) => total + n, 0);
  print(`\n${digits(counts.grid)} layouts in the grid`);
  print(
    `  ${digits(sum).padStart(11)}  illegal: ${illegal.map(([name, n]) => `${name} ${digits(n)}`).join(", ") || "none"}`,
  );
  print(`  ${digits(counts.cutByMemory).padStart(11)}  cut: too large even with full recomputation`);
  print(`  ${digits(counts.cutByTime).padStart(11)}  cut: slower than the last of the best in work and bubble alone`);
  print(`  ${digits(counts.tooLarge).padStart(11)}  evaluated: do not fit`);
  print(`  ${digits(counts.slower).padStart(11)}  evaluated: fit, slower`);
  print(`  ${digits(best).padStart(11)}  best`);
}

export function printBest(job: PlanJob, best: readonly Evaluation[]): void {
  const rows = best.map((evaluation, i) => {
    const { layout: l, memoryBytes, stepSec } = evaluation;
    const { mfu, tokensPerSecPerDevice, bubbleShare } = summarise(job.evaluator, evaluation);
    const degrees = [l.tp, l.pp, l.vp, l.cp, l.ep, l.etp, l.dp, l.zero, l.microBatchSize].map(String);
    const recompute = l.recompute.startsWith("first") ? `${l.recompute}%` : l.recompute;
    return [
      String(i + 1),
      ...degrees,
      recompute,
      gb(memoryBytes),
      gib(memoryBytes),
      stepSec.toFixed(3),
      percent(bubbleShare),
      percent(mfu),
      tokensPerSecPerDevice.toFixed(0),
    ];
  });
  const head = [
    "",
    "TP",
    "PP",
    "VP",
    "CP",
    "EP",
    "ETP",
    "DP",
    "ZeRO",
    "MBS",
    "recompute",
    "GB",
    "GiB",
    "step s",
    "bubble share",
    "MFU",
    "tokens/s/device",
  ];
  print(`\n${formatTable({ head, rows, left: [10] }, "text")}`);
}

/** One layout in full: memory by part, time by part, rates and cost. */
export function printEvaluation(job: PlanJob, evaluation: Evaluation, price: number, tokens?: number): void {
  const summary = summarise(job.evaluator, evaluation);
  const { memoryBytes, fullestStage, stepSec, workSec, bubbleSec, dataParallelSec, optimizerSec } = evaluation;
  print(`\nmemory of pipeline rank ${fullestStage}, the fullest`);
  for (const part of MEMORY_PARTS) {
    if (summary.memory[part] > 0) print(`  ${part.padEnd(14)} ${size(summary.memory[part]).padStart(24)}`);
  }
  print(`  ${"total".padEnd(14)} ${size(memoryBytes).padStart(24)}${evaluation.fits ? "" : "  does not fit"}`);
  if (!evaluation.fits) print(`  over by        ${size(memoryBytes - job.evaluator.limitBytes).padStart(24)}`);
  print(`\ntime of a step on pipeline rank ${evaluation.slowestStage}, the slowest`);
  const times = {
    work: workSec,
    bubble: bubbleSec,
    "data parallel": dataParallelSec,
    optimizer: optimizerSec,
    step: stepSec,
  };
  for (const [name, seconds] of Object.entries(times))
    print(`  ${name.padEnd(14)} ${seconds.toFixed(3).padStart(10)} s`);
  printRates(job, summary, price);
  if (tokens !== undefined) printRun(job, summary, price, tokens);
}

function printRates({ device, world }: PlanJob, summary: TrainingSummary, price: number): void {
  const { mfu, hfu, peakFlopsPerSec, tokensPerDay, tokensPerSecPerDevice, deviceHoursPerTrillion } = summary;
  const peak = `${(peakFlopsPerSec / 1e12).toFixed(0)} TFLOP/s, dense`;
  print(`\nMFU         ${percent(mfu)} of ${peak}, causal; HFU ${percent(hfu)}`);
  print(`FLOPs       ${(summary.flopsPerToken / 1e9).toFixed(2)} GFLOP per token`);
  print(
    `rate        ${tokensPerSecPerDevice.toFixed(0)} tokens/s/device, ${(tokensPerDay / 1e9).toFixed(1)} billion tokens a day`,
  );
  const trillion = billOf(summary, device, world, price);
  const energy = trillion.kwh === undefined ? "" : `, ${digits(Math.round(trillion.kwh))} kWh at board power`;
  print(
    `10¹² tokens ${digits(Math.round(deviceHoursPerTrillion))} device-hours, ${digits(Math.round(trillion.cost))} $ at ${priceText(price)} (${trillion.costPerMillionTokens.toFixed(3)} $ a million tokens)${energy}`,
  );
}

const priceText = (price: number): string =>
  `${price.toFixed(2)} $ a device-hour, an assumed price (--price changes it)`;

/** Time, energy and cost of a run of so many tokens. */
function printRun({ device, world }: PlanJob, summary: TrainingSummary, price: number, tokens: number): void {
  const { seconds, deviceHours, cost, kwh } = billOf(summary, device, world, price, tokens);
  const energy = kwh === undefined ? "" : `, ${digits(Math.round(kwh))} kWh at board power`;
  const time = `${digits(Math.round(seconds / 3600))} hours (${(seconds / 86400).toFixed(1)} days)`;
  const money = `${digits(Math.round(deviceHours))} device-hours, ${digits(Math.round(cost))} $ at ${price.toFixed(2)} $ each`;
  print(`whole run   ${(tokens / 1e9).toFixed(1)} billion tokens: ${time}, ${money}${energy}`);
}

const SUFFIXES: Readonly<Record<string, number>> = { "": 1, k: 1e3, m: 1e6, b: 1e9, g: 1e9, t: 1e12 };

/** `14.8T`, `300B` or a plain number. @throws ConfigError for another form, or nothing. */
export function tokenCount(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmbgt]?)\s*$/i.exec(text);
  const count = match === null ? 0 : Number(match[1]) * SUFFIXES[match[2]!.toLowerCase()]!;
  if (count >= 1 && Number.isFinite(count)) return count;
  throw new ConfigError("--tokens", "must be a number of tokens, with K, M, B or T", text, "for example 14.8T");
}

function billOf(
  { tokensPerSec }: TrainingSummary,
  device: PlanJob["device"],
  devices: number,
  price: number,
  tokens = 1e12,
) {
  const usage = { devices, seconds: tokens / tokensPerSec, tokens };
  return { ...usage, ...costOf(usage, price), kwh: energyOf(usage, device)?.kwh };
}

/** Rows by the words under which a plan prints them, where these are not the rows' own. */
const TRAINING_LABELS: Labels = {
  ...Object.fromEntries(MEMORY_PARTS.map((part) => [part, `memory.${part}`])),
  ...COMMON_LABELS,
  memory: "memory.total",
  GB: "memory.total",
  GiB: "memory.total",
  "over by": "memory.over",
  "may be planned": "memory.limit",
  efficiency: "compute_share",
  step: "time.step",
  "step s": "time.step",
  work: "time.work",
  bubble: "time.bubble",
  "bubble share": "run.bubble_share",
  FLOPs: "flops.training",
  "GFLOP/token": "flops.training",
  "GFLOP per token": "flops.training",
  rate: "run.device_rate",
  "tokens/s/device": "run.device_rate",
  "tokens/s": "run.rate",
  "tokens a day": "run.tokens_per_day",
  "billion tokens a day": "run.tokens_per_day",
  kWh: "bill.energy",
  $: "bill.cost",
  days: "bill.seconds",
  "whole run": "bill.seconds",
  "10¹² tokens": "bill.seconds",
};

/**
 * Where a number of a plan comes from, by its row, words of it or what it is printed under.
 * @param bill - price of a device-hour and tokens of the work, 10¹² by default; without it the plan has no bill.
 * @throws ConfigError for a name that the plan does not have.
 */
export function explainNumber(
  { evaluator, device, world }: Pick<PlanJob, "evaluator" | "device" | "world">,
  layout: Evaluation["layout"],
  name: string,
  bill?: { readonly price: number; readonly tokens?: number },
): Quantity {
  const found = findLabelled(BILL_NAMES, TRAINING_LABELS, name);
  if (found === undefined || !BILL_NAMES.includes(found)) return evaluator.explain(layout, found ?? name);
  if (bill === undefined) return evaluator.explain(layout, name);
  const usage = { devices: world, tokens: bill.tokens ?? 1e12, rate: evaluator.explain(layout, "run.rate") };
  return explainBill(found, usage, device, bill.price);
}

/** An evaluated layout for JSON. */
export function evaluationJson(job: PlanJob, evaluation: Evaluation, price: number, tokens?: number): object {
  const summary = summarise(job.evaluator, evaluation);
  return snake({ ...evaluation, ...summary, bill: billOf(summary, job.device, job.world, price, tokens) });
}

export function headJson({ name, device, world, globalBatchSize, seqLen, evaluator, notes }: PlanJob): object {
  const { recipe, efficiency, margin } = evaluator.job;
  const { limitBytes } = evaluator;
  return snake({
    ...{ model: name, device: device.name, devices: world, globalBatchSize, seqLen, precision: recipe.name },
    ...{ margin, limitBytes, efficiency, notes },
  });
}

/** A number, then what it was computed from; what was shown before is not opened again. */
export function printQuantity(quantity: Quantity): void {
  const shown = new Set<string>();
  const walk = ({ name, value, unit, formula, meaning, source, inputs }: Quantity, depth: number): void => {
    const indent = "  ".repeat(depth);
    // Two runs that are compared have the same names with other values.
    const key = [name, value, ...inputs.map((input) => input.value)].join(" ");
    const again = shown.has(key);
    shown.add(key);
    print(`${indent}${name} = ${amountText(value, unit)}${again ? "  (see above)" : `  — ${meaning}`}`);
    if (again) return;
    if (formula !== undefined) print(`${indent}  = ${formula}${source === undefined ? "" : `   [${source}]`}`);
    for (const input of inputs) walk(input, depth + 1);
  };
  walk(quantity, 0);
}

/** Bytes to the last one and, from a megabyte on, in GB and GiB. */
function amountText(value: number, unit: string): string {
  if (unit !== "bytes") return `${Number(value.toPrecision(9))}${unit === "" ? "" : ` ${unit}`}`;
  return Math.abs(value) < 1e6 ? `${value} bytes` : `${value} bytes = ${size(value)}`;
}

export function printLedger(lines: readonly LedgerLine[]): void {
  const rows = lines.map(({ name, part, bytes, derivation }) => [name, part, String(bytes), derivation]);
  print(formatTable({ head: ["tensor", "part", "bytes", "from"], rows, left: [0, 1, 3] }, "text"));
  print(`total ${size(lines.reduce((sum, { bytes }) => sum + bytes, 0))}`);
}
