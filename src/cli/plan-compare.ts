/** `fathom plan compare A B`: the best plans of two models on the same devices, side by side. */

import { Command } from "commander";
import { ConfigError } from "../core/errors.ts";
import { MEMORY_PARTS, summarise, layoutText, type Evaluation } from "../planner/index.ts";
import { number } from "./options.ts";
import { print, printJson, size } from "./output.ts";
import { openJob, withSearchOptions, type JobOptions, type PlanJob } from "./plan-job.ts";
import { evaluationJson, explainNumber, headJson, percent, printQuantity } from "./plan-report.ts";
import { searchJob } from "./plan-search.ts";
import { formatTable } from "./table.ts";

interface CompareOptions extends JobOptions {
  readonly price: number;
  readonly why?: string;
}

/** What scripts see when nothing fits. */
const NOTHING_FITS = 3;

export function compareCommand(): Command {
  const compare = new Command("compare")
    .description("the best plans of two models side by side")
    .argument("<a>", "a preset, a config.json, a checkpoint folder or a .gguf file")
    .argument("<b>", "another")
    .option("--price <amount>", "assumed price of a device for an hour, in $", number("--price", 0), 2)
    .option("--why <number>", "print where a number of each plan comes from, for example memory.total or mfu");
  return withSearchOptions(compare).action(runCompare);
}

interface Planned {
  readonly job: PlanJob;
  readonly evaluation: Evaluation;
}

async function runCompare(a: string, b: string, options: CompareOptions, command: Command): Promise<void> {
  const planned = await Promise.all([a, b].map((model) => bestOf(model, options, command)));
  if (planned.some(({ evaluation }) => !evaluation.fits)) process.exitCode = NOTHING_FITS;
  if (options.why !== undefined) return explainBoth(planned, options.why, options);
  if (options.json === true) {
    const plans = planned.map(({ job, evaluation }) => ({
      ...headJson(job),
      plan: evaluationJson(job, evaluation, options.price),
    }));
    return printJson({ plans });
  }
  const columns = planned.map(({ job, evaluation }) => columnOf(job, evaluation));
  const rows = Object.keys(columns[0]!).map((name) => [name, ...columns.map((column) => column[name]!)]);
  print(formatTable({ head: ["", ...planned.map(({ job }) => job.name)], rows }, "text"));
}

function explainBoth(planned: readonly Planned[], why: string, { price, json = false }: CompareOptions): void {
  const plans = planned.map(({ job, evaluation: { layout } }) => ({
    model: job.name,
    layout: layoutText(layout),
    why: explainNumber(job, layout, why, { price }),
  }));
  if (json) return printJson({ plans });
  for (const { model, layout, why: quantity } of plans) {
    print(`${model}, ${layout}`);
    printQuantity(quantity);
  }
}

async function bestOf(model: string, options: CompareOptions, command: Command): Promise<Planned> {
  const job = await openJob(model, options, command);
  const { best, nearest } = searchJob(job, job.options);
  const evaluation = best[0] ?? nearest;
  if (evaluation === undefined) throw new ConfigError("layout", `some layout of ${model} must be legal`, options.gpus);
  return { job, evaluation };
}

function columnOf(job: PlanJob, evaluation: Evaluation): Record<string, string> {
  const { memory, mfu, flopsPerToken, tokensPerSecPerDevice, deviceHoursPerTrillion } = summarise(
    job.evaluator,
    evaluation,
  );
  return {
    layout: layoutText(evaluation.layout),
    fits: evaluation.fits ? "yes" : "no",
    ...Object.fromEntries(MEMORY_PARTS.map((part) => [part, size(memory[part])])),
    memory: size(evaluation.memoryBytes),
    "step s": evaluation.stepSec.toFixed(3),
    "tokens/s/device": tokensPerSecPerDevice.toFixed(0),
    "GFLOP/token": (flopsPerToken / 1e9).toFixed(2),
    MFU: percent(mfu),
    "device-hours for 10¹² tokens": deviceHoursPerTrillion.toFixed(0),
  };
}
