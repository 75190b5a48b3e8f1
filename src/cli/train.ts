/** `fathom train`: a new run on a corpus or on the user's own text, or an old one resumed. */

import { Command } from "commander";
import {
  checkRuns,
  idleSettings,
  preset,
  presetNames,
  resolveConfig,
  toJson,
  type ResolvedConfig,
} from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import { CORPORA } from "../data/index.ts";
import { SavedRun, type DataReference } from "../train/node.ts";
import { assignments, collect, integer } from "./options.ts";
import { print } from "./output.ts";
import { readRunFile, runFileName } from "./run-files.ts";
import { settingOption } from "./setting-option.ts";
import { checkHoldsNoRun, defaultOut, runTraining, stoppedText, type TrainingJob } from "./training.ts";

export interface TrainOptions {
  readonly preset?: string;
  readonly config?: string;
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
    .option("--config <file>", "a run file, YAML or JSON; it lies over the preset unless it names its own")
    .option("--corpus <name>", `a corpus of the catalogue: ${CORPORA.map(({ name }) => name).join(", ")}`)
    .option("--data <glob...>", "your own .txt or .jsonl files, folders or globs")
    .addOption(settingOption("--steps <n>", "training.steps"))
    .addOption(settingOption("--schedule-steps <n>", "training.schedule_steps"))
    .addOption(settingOption("--seed <s>", "training.seed"))
    .option("--threads <n>", "threads (default: the cores)", integer("--threads", 1))
    .option("--set <key=value>", "any other setting; may be given several times", collect)
    .option("--out <dir>", "run folder, which must not hold a run yet (default runs/PRESET-CORPUS)")
    .option("--resume <dir>", "go on from a run folder or a checkpoint")
    .option("--json", "one JSON object per step, evaluation and checkpoint on stdout")
    .action(train);
}

async function train(options: TrainOptions): Promise<void> {
  const job = options.resume === undefined ? await newJob(options) : await resumedJob(options, options.resume);
  for (const { path, value, reason } of idleSettings(job.config, "train", job.resume?.config)) {
    process.stderr.write(`warning: ${path} = ${JSON.stringify(value)} changes nothing: ${reason}\n`);
  }
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

interface NewRunOptions {
  readonly data: DataReference;
  readonly out: string;
  readonly json: boolean;
  /** The settings that `settings` are laid over. */
  readonly base: string | ((overrides: Record<string, unknown>) => ResolvedConfig);
}

/**
 * @throws ConfigError when the run folder holds a run already, or a setting is wrong.
 * @throws UnsupportedError for a setting that the trainer cannot carry out.
 */
export function newRun({ base, ...options }: NewRunOptions, settings: Record<string, unknown>): TrainingJob {
  checkHoldsNoRun(options.out);
  const resolveOver = typeof base === "function" ? base : (more: Record<string, unknown>) => resolveConfig(base, more);
  const withSettings = (more: Record<string, unknown>): ResolvedConfig => resolveOver({ ...settings, ...more });
  const config = withSettings({});
  checkRuns(config, "train");
  if (config.model.dtype !== "f32") {
    const rule = "must be f32 in training, which saves the weights as it keeps them";
    throw new ConfigError("dtype", rule, config.model.dtype, "add --set dtype=f32");
  }
  return { config, withSteps: (steps) => withSettings({ steps }), ...options };
}

async function newJob(options: TrainOptions): Promise<TrainingJob> {
  const { name, base } = await baseOf(options);
  const data = dataOf(options);
  const out = options.out ?? defaultOut(`${name}-${data.kind === "corpus" ? data.name : "text"}`);
  return newRun({ base, data, out, json: options.json ?? false }, flagSettings(options));
}

/** What flags and --set are laid over: a preset, or a run file. */
async function baseOf({ preset: name, config }: TrainOptions): Promise<{ name: string; base: NewRunOptions["base"] }> {
  if (name !== undefined) preset(name);
  if (config === undefined) return { name: name ?? "nano", base: name ?? "nano" };
  const file = await readRunFile(config);
  const under = name ?? (file.namesPreset ? undefined : "nano");
  return {
    name: runFileName(config),
    base: (overrides) => file.resolve({ overrides, ...(under === undefined ? {} : { base: under }) }),
  };
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
    ["--config", options.config],
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
  checkRuns(config, "train");
  checkStepsAhead(config.training.steps, resume);
  resume.checkConfig(config);
  return { config, withSteps, data: resume.data, out: resume.runFolder, resume, json: options.json ?? false };
}
