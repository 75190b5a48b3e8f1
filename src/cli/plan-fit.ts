/** `fathom plan fit MODEL`: the largest batch and sequence that train in a given memory, or which GGUF files run on a machine. */

import { Command } from "commander";
import { blueprint } from "../blueprint/index.ts";
import { openModel } from "../blueprint/node.ts";
import { ConfigError } from "../core/errors.ts";
import {
  checkLayout,
  completeLayout,
  createTrainingEvaluator,
  fitTraining,
  largestFit,
  type FitRow,
  type Layout,
} from "../planner/index.ts";
import { checkPartners, flagOf, integer, isGiven, number } from "./options.ts";
import { print, printJson, size, snake } from "./output.ts";
import { openJob, withJobOptions, type JobOptions, type PlanJob } from "./plan-job.ts";
import { parseBytes, planLocalFit, type LocalOptions } from "./plan-local.ts";
import { explainNumber, headJson, printHead, printQuantity } from "./plan-report.ts";
import { openSettings, pinsOf, planName, withPins } from "./plan-settings.ts";
import { formatTable } from "./table.ts";

interface FitOptions extends JobOptions, Omit<Partial<LocalOptions>, keyof JobOptions> {
  readonly mem?: string;
  readonly why?: string;
  readonly json?: boolean;
}

/** What scripts see when nothing fits. */
const NOTHING_FITS = 3;

export function fitCommand(): Command {
  const fit = new Command("fit")
    .description("the largest batch and sequence that fit; with --vram and --ram, which GGUF mixes run")
    .argument("<model>", "a preset, a run file (.yaml), a config.json, a checkpoint folder or a .gguf file")
    .option("--mem <size>", "memory of one device, for example 24GiB (default: the device's)")
    .option("--vram <size>", "memory of the GPU of one machine, for running a GGUF file")
    .option("--ram <size>", "memory of that machine")
    .option("--gpu <name>", "the GPU whose memory bandwidth is meant (default: rtx-4090)")
    .option("--cpu <name>", "the processor whose memory bandwidth is meant")
    .option("--ram-bandwidth <GB/s>", "of the memory, without --cpu", number("--ram-bandwidth", 1))
    .option("--context <tokens>", "tokens of context of a GGUF file", integer("--context", 1))
    .option("--quant <mix>", "only this GGUF mix")
    .option("--why <number>", "print where a number of the answer comes from: memory.total, or with --quant bound.rate")
    .option("--no-imatrix", "the GGUF file was made without importance matrix");
  return withJobOptions(fit).action(runFit);
}

/** Options that `--vram` reads, and whether they act only with it. */
const READ_WITH_VRAM: Readonly<Record<string, "only" | "too">> = {
  ...{ gpu: "only", cpu: "only", ramBandwidth: "only", context: "only", quant: "only", imatrix: "only" },
  ...{ vram: "too", ram: "too", why: "too", margin: "too", hardware: "too", set: "too", json: "too" },
};
const ONLY_WITH_VRAM = Object.fromEntries(
  Object.keys(READ_WITH_VRAM)
    .filter((option) => READ_WITH_VRAM[option] === "only")
    .map((option) => [option, "vram"]),
);

async function runFit(model: string, options: FitOptions, command: Command): Promise<void> {
  if (options.vram !== undefined || options.ram !== undefined) return runLocal(model, options, command);
  checkPartners(command, ONLY_WITH_VRAM);
  const opened = await openJob(model, { ...options, globalBatch: 1 }, command);
  const job = options.mem === undefined ? opened : withMemory(opened, parseBytes("--mem", options.mem));
  const settings = { ...options, ...job.options };
  const rows = fitRows(job, settings);
  const largest = largestFit(rows);
  if (largest === undefined) process.exitCode = NOTHING_FITS;
  if (options.why !== undefined) return explainFit(job, largest ?? leastOf(rows), settings, options.why);
  if (options.json !== true) return printFit(job, rows, largest);
  printJson({ ...headJson(job), rows: rows.map(snake), largest: largest === undefined ? null : snake(largest) });
}

async function runLocal(model: string, { vram, ram, set, ...options }: FitOptions, command: Command): Promise<void> {
  if (vram === undefined || ram === undefined) {
    const rule = "--vram and --ram must be given together";
    throw new ConfigError("plan fit", rule, undefined, "for example --vram 24GiB --ram 256GiB");
  }
  const idle = command.options.find(
    (option) => isGiven(command, option.attributeName()) && !Object.hasOwn(READ_WITH_VRAM, option.attributeName()),
  );
  if (idle !== undefined) {
    const cure = "it is for training; leave it out, or leave out --vram and --ram";
    throw new ConfigError(flagOf(command, idle.attributeName()), "acts only without --vram", undefined, cure);
  }
  const config = await openSettings(model, { set, verb: "plan fit --vram", read: ["hardware.memory_margin"] });
  if (config === undefined) {
    const opened = await openModel(model);
    return planLocalFit(opened.name, opened.blueprint, { ...options, vram, ram });
  }
  const { margin } = pinsOf(config);
  const pinned = withPins(options, margin === undefined ? {} : { margin }, command);
  return planLocalFit(planName(model), blueprint(config.model), { ...pinned, vram, ram });
}

/** The same job on a device with another memory. */
function withMemory(job: PlanJob, memoryBytes: number): PlanJob {
  const device = { ...job.device, memoryBytes };
  const { cluster, ...rest } = job.evaluator.job;
  return { ...job, device, evaluator: createTrainingEvaluator({ ...rest, cluster: { ...cluster, device } }) };
}

/** Sequences that are tried where none is given. */
const SEQUENCES = Array.from({ length: 9 }, (_, i) => 512 * 2 ** i);

/** Where a number of the found answer comes from, or of the layout that is nearest to it. */
function explainFit(job: PlanJob, row: FitRow, options: FitOptions, name: string): void {
  const base = fitLayout(job, { ...options, seq: row.seqLen });
  const { recompute, microBatchSize: found } = row;
  const microBatchSize = Math.max(1, found);
  const globalBatchSize = base.globalBatchSize * microBatchSize;
  const layout = { ...base, recompute, microBatchSize, globalBatchSize };
  const quantity = explainNumber(job, layout, name === "largest" ? "memory.total" : name);
  if (options.json === true) printJson(quantity);
  else printQuantity(quantity);
}

/** What needs the least memory. */
function leastOf(rows: readonly FitRow[]): FitRow {
  return rows.toSorted((a, b) => a.memoryBytes - b.memoryBytes)[0]!;
}

function fitRows(job: PlanJob, options: FitOptions): FitRow[] {
  const { seq, recompute } = options;
  const rows = fitTraining(job.evaluator, fitLayout(job, options), seq === undefined ? SEQUENCES : [seq]);
  return recompute === undefined ? rows : rows.filter((row) => row.recompute === recompute);
}

/** The given degrees with micro-batches of one sequence. */
function fitLayout(job: PlanJob, options: FitOptions): Layout {
  const { tp = 1, pp = 1, vp = 1, cp = 1, ep = 1, etp = 1, schedule, dp, seq = SEQUENCES[0]! } = options;
  const zero = options.zero ?? (job.world > 1 ? 3 : 0);
  const micros = pp > 1 ? 2 * pp : 1;
  const given = { ...(schedule === undefined ? {} : { schedule }), ...(dp === undefined ? {} : { dp }) };
  const degrees = { tp, pp, vp, cp, ep, etp, zero, ...given };
  const base = completeLayout({ ...degrees, globalBatchSize: 1, seqLen: seq }, job.world);
  const layout = { ...base, globalBatchSize: base.dp * micros };
  checkLayout(layout, job.evaluator.job.shape, job.world);
  return layout;
}

function printFit(job: PlanJob, rows: readonly FitRow[], largest: FitRow | undefined): void {
  printHead(job);
  const settings = [...new Set(rows.map(({ recompute }) => recompute))];
  const table = [...new Set(rows.map(({ seqLen }) => seqLen))].map((seqLen) => [
    String(seqLen),
    ...settings.map((recompute) => {
      const row = rows.find((other) => other.seqLen === seqLen && other.recompute === recompute)!;
      return row.microBatchSize === 0 ? "–" : String(row.microBatchSize);
    }),
  ]);
  print(
    `\nlargest micro-batch by recomputation\n${formatTable({ head: ["tokens", ...settings], rows: table }, "text")}`,
  );
  if (largest === undefined) {
    const least = leastOf(rows);
    return print(`nothing fits: one sequence of ${least.seqLen} tokens needs ${size(least.memoryBytes)}`);
  }
  const { seqLen, microBatchSize, recompute, memoryBytes } = largest;
  print(`largest: ${microBatchSize} × ${seqLen} tokens, recompute ${recompute}, ${size(memoryBytes)}`);
}
