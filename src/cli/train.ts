/** `fathom train`: a new run on a corpus or on the user's own text, or an old one resumed. */

import { Command } from "commander";
import { preset, presetNames, resolveConfig, toJson, type ResolvedConfig } from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import { CORPORA } from "../data/index.ts";
import { SavedRun, type DataReference } from "../train/node.ts";
import { assignments, collect, integer } from "./options.ts";
import { print } from "./output.ts";
import { checkHoldsNoRun, defaultOut, runTraining, stoppedText, type TrainingJob } from "./training.ts";

export interface TrainOptions {
  readonly preset?: string;
  readonly corpus?: string;
  readonly data?: string[];
  readonly steps?: number;
  readonly scheduleSteps?: number;
  readonly seed?: number;
  readonly threads?: number;
  readonly set?: string[];
  readonly out?: string;
  readonly resume?: string;
  readonly json?: boolean;
}

export function trainCommand(): Command {
  return new Command("train")
    .description("train a model; the tokenizer is trained or taken from the cache by itself")
    .option("--preset <name>", `model and training settings: ${presetNames().join(", ")} (default nano)`)
    .option("--corpus <name>", `a corpus of the catalogue: ${CORPORA.map(({ name }) => name).join(", ")}`)
    .option("--data <glob...>", "your own .txt or .jsonl files, folders or globs")
    .option("--steps <n>", "optimizer steps", integer("--steps", 1))
    .option(
      "--schedule-steps <n>",
      "steps over which the learning rate runs its course",
      integer("--schedule-steps", 1),
    )
    .option("--seed <s>", "seed of weights and order", integer("--seed", 0))
    .option("--threads <n>", "threads (default: the cores)", integer("--threads", 1))
    .option("--set <key=value>", "any other setting; may be given several times", collect)
    .option("--out <dir>", "run folder, which must not hold a run yet (default runs/PRESET-CORPUS)")
    .option("--resume <dir>", "go on from a run folder or a checkpoint")
    .option("--json", "one JSON object per step, evaluation and checkpoint on stdout")
    .action(train);
}

async function train(options: TrainOptions): Promise<void> {
  const job = options.resume === undefined ? newJob(options) : await resumedJob(options, options.resume);
  const result = await runTraining(job);
  if (options.json === true) return;
  if (result.stepsLeft !== undefined) return print(stoppedText(result, job.out));
  print(`saved ${result.checkpoint}`);
  print(`next: npx fathom generate --model ${job.out} --prompt "…"`);
}

/** Settings of flags, to be laid over a preset or a saved run. */
export function flagSettings({ steps, scheduleSteps, seed, threads, set = [] }: TrainOptions): Record<string, unknown> {
  // By section, so that a flag and a --set of the same parameter stand side by side and must agree.
  return { ...assignments(set), training: { steps, scheduleSteps, seed }, runtime: { threads } };
}

/** @throws ConfigError when the run folder holds a run already, or a setting is wrong. */
export function newRun(
  options: { name: string; data: DataReference; out: string; json: boolean },
  settings: Record<string, unknown>,
): TrainingJob {
  checkHoldsNoRun(options.out);
  const withSettings = (more: Record<string, unknown>): ResolvedConfig =>
    resolveConfig(options.name, { ...settings, ...more });
  const config = withSettings({});
  if (config.model.dtype !== "f32") {
    const rule = "must be f32 in training, which saves the weights as it keeps them";
    throw new ConfigError("dtype", rule, config.model.dtype, "add --set dtype=f32");
  }
  return { config, withSteps: (steps) => withSettings({ steps }), ...options };
}

function newJob(options: TrainOptions): TrainingJob {
  const name = options.preset ?? "nano";
  preset(name);
  const data = dataOf(options);
  const out = options.out ?? defaultOut(`${name}-${data.kind === "corpus" ? data.name : "text"}`);
  return newRun({ name, data, out, json: options.json ?? false }, flagSettings(options));
}

function dataOf({ corpus, data }: TrainOptions): DataReference {
  if (corpus !== undefined && data !== undefined) {
    throw new ConfigError("--data", "must not be given together with --corpus", data, "give one of them");
  }
  if (data !== undefined) return { kind: "files", patterns: data, cwd: process.cwd() };
  return { kind: "corpus", name: corpus ?? "sotu" };
}

/** A run that has all its steps has nothing to go on with. */
function checkStepsAhead(steps: number, { path, state }: SavedRun): void {
  if (steps > state.step) return;
  const cure = `give --steps above ${state.step} to go on, or generate from ${path}`;
  throw new ConfigError("--steps", `must be above the ${state.step} steps that the run has taken`, steps, cure);
}

async function resumedJob(options: TrainOptions, path: string): Promise<TrainingJob> {
  for (const [flag, value] of [
    ["--preset", options.preset],
    ["--corpus", options.corpus],
    ["--data", options.data],
    ["--out", options.out],
  ] as const) {
    if (value !== undefined) throw new ConfigError(flag, "must not be given with --resume", value, "the run knows it");
  }
  const resume = await SavedRun.open(path);
  const saved = JSON.parse(toJson(resume.config)) as Record<string, unknown>;
  const withSteps = (steps: number): ResolvedConfig => resolveConfig(saved, flagSettings({ ...options, steps }));
  const config = resolveConfig(saved, flagSettings(options));
  checkStepsAhead(config.training.steps, resume);
  resume.checkConfig(config);
  return { config, withSteps, data: resume.data, out: resume.runFolder, resume, json: options.json ?? false };
}
