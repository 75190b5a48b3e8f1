/** `fathom plan MODEL`: the best layouts for training a model on given devices; fit, compare and what belongs to a plan. */

import { Command, Option } from "commander";
import { ConfigError } from "../core/errors.ts";
import { memoryLedger, type Evaluation, type SearchResult } from "../planner/index.ts";
import { checkPartners, integer, number } from "./options.ts";
import { print, printJson, size, snake } from "./output.ts";
import { assumptionsCommand } from "./plan-assumptions.ts";
import { calibrateCommand } from "./plan-calibrate.ts";
import { compareCommand } from "./plan-compare.ts";
import { devicesCommand } from "./plan-devices.ts";
import { planExportCommand } from "./plan-export.ts";
import { fitCommand } from "./plan-fit.ts";
import { openJob, withSearchOptions, type JobOptions, type PlanJob } from "./plan-job.ts";
import {
  evaluationJson,
  explainNumber,
  headJson,
  printBest,
  printCounts,
  printEvaluation,
  printHead,
  printLedger,
  printQuantity,
  tokenCount,
} from "./plan-report.ts";
import { nothingLegal, searchJob } from "./plan-search.ts";
import { serveCommand } from "./plan-serve.ts";

interface PlanOptions extends JobOptions {
  readonly task: "train";
  readonly top: number;
  readonly price: number;
  readonly tokens?: number;
  readonly exhaustive?: boolean;
  readonly why?: string;
  readonly ledger?: boolean;
  readonly stage?: number;
}

/** What scripts see when nothing fits. */
const NOTHING_FITS = 3;

export function planCommand(): Command {
  const plan = new Command("plan")
    .description("plan training: memory, time and the best layout of a model on devices")
    .argument("<model>", "a preset, a run file (.yaml), a config.json, a checkpoint folder or a .gguf file")
    .enablePositionalOptions();
  return withSearchOptions(plan)
    .addOption(
      new Option("--task <task>", "what is planned; `plan serve` plans inference").choices(["train"]).default("train"),
    )
    .option("--top <n>", "how many of the best are printed", integer("--top", 1, 1000), 10)
    .option("--price <amount>", "assumed price of a device for an hour, in $", number("--price", 0), 2)
    .option("--tokens <count>", "tokens of the whole run, for example 14.8T: its time, energy and cost", tokenCount)
    .option("--exhaustive", "evaluate every legal layout, without bounds")
    .option(
      "--why <number>",
      "print where a number of the best layout comes from, for example memory.activations, mfu, cost or energy",
    )
    .option("--ledger", "print the memory of a rank, tensor by tensor")
    .option("--stage <n>", "pipeline rank of the ledger (default: the fullest)", integer("--stage", 0))
    .action(search)
    .addCommand(fitCommand())
    .addCommand(compareCommand())
    .addCommand(serveCommand())
    .addCommand(planExportCommand())
    .addCommand(devicesCommand())
    .addCommand(assumptionsCommand())
    .addCommand(calibrateCommand());
}

async function search(model: string, given: PlanOptions, command: Command): Promise<void> {
  checkPartners(command, { stage: "ledger" });
  if (given.why !== undefined && given.ledger === true) {
    throw new ConfigError("--why", "must not stand with --ledger", given.why, "ask for one after the other");
  }
  const job = await openJob(model, given, command);
  const options = { ...given, ...job.options };
  const result = searchJob(job, options);
  const chosen = result.best[0] ?? result.nearest;
  if (result.best.length === 0) process.exitCode = NOTHING_FITS;
  if (chosen === undefined) throw nothingLegal(job, options, result);
  if (options.why !== undefined) return explain(job, chosen, options.why, options);
  if (options.ledger === true) return showLedger(job, chosen, options);
  if (options.json === true) return printJson(resultJson(job, result, options));
  printHead(job);
  printCounts(result.counts, result.best.length);
  if (result.best.length > 0) printBest(job, result.best);
  else
    print(
      `\nnothing fits; the nearest layout needs ${size(chosen.memoryBytes)}: take more devices, LoRA or a smaller recipe`,
    );
  printEvaluation(job, chosen, options.price, options.tokens);
}

function explain(
  { evaluator, device, world }: PlanJob,
  { layout }: Evaluation,
  name: string,
  { price, tokens = 1e12, json = false }: PlanOptions,
): void {
  const quantity = explainNumber({ evaluator, device, world }, layout, name, { price, tokens });
  if (json) printJson(quantity);
  else printQuantity(quantity);
}

function showLedger({ evaluator }: PlanJob, { layout }: Evaluation, { stage, json = false }: PlanOptions): void {
  if (stage !== undefined && stage >= layout.pp) {
    throw new ConfigError("--stage", `must be below PP (${layout.pp})`, stage, "ranks count from 0");
  }
  const lines = memoryLedger(evaluator, layout, stage);
  if (json) printJson({ layout: snake(layout), lines });
  else printLedger(lines);
}

function resultJson(job: PlanJob, { best, nearest, counts }: SearchResult, { price, tokens }: PlanOptions): object {
  return {
    ...headJson(job),
    counts: snake(counts),
    best: best.map((evaluation) => evaluationJson(job, evaluation, price, tokens)),
    ...(best.length > 0 || nearest === undefined ? {} : { nearest: evaluationJson(job, nearest, price, tokens) }),
  };
}
