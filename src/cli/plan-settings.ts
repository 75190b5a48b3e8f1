/** What settings say to the planning verbs: the options that they stand for, and what their model needs said. */

import type { Command } from "commander";
import {
  findParameter,
  idleSettings,
  pathOf,
  presetNames,
  type ModelConfig,
  type ResolvedConfig,
} from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import type { Recompute, Schedule, ZeroStage } from "../planner/index.ts";
import { assignments, isGiven } from "./options.ts";
import { openConfig, runFileName } from "./run-files.ts";

export const DEGREES = ["tp", "pp", "vp", "cp", "ep", "etp", "dp"] as const;

/** Options of `plan` and of `plan export`, by the names that both give them. */
export interface PinnedOptions extends Partial<Record<(typeof DEGREES)[number], number>> {
  readonly gpus?: string;
  readonly zero?: ZeroStage;
  readonly recompute?: Recompute;
  readonly schedule?: Schedule;
  readonly precision?: string;
  readonly margin?: number;
  readonly microBatch?: number;
}

export const isRunFile = (model: string): boolean => /\.ya?ml$/i.test(model);

/** What a plan calls its model: a run file by its name without folder and ending. */
export const planName = (model: string): string => (isRunFile(model) ? runFileName(model) : model);

const devices = ({ hardware }: ResolvedConfig): PinnedOptions => ({ gpus: `${hardware.devices}x${hardware.device}` });

/** Parallel and hardware settings by path, with the options that they stand for. */
const OPTIONS: Readonly<Record<string, (config: ResolvedConfig) => PinnedOptions>> = {
  ...Object.fromEntries(
    DEGREES.map((name) => [`parallel.${name}`, ({ parallel }: ResolvedConfig) => ({ [name]: parallel[name] })]),
  ),
  "parallel.zero": ({ parallel }) => ({ zero: parallel.zero as ZeroStage }),
  "parallel.recompute": ({ parallel }) => ({ recompute: parallel.recompute }),
  "parallel.pipeline_schedule": ({ parallel }) => ({ schedule: parallel.pipelineSchedule }),
  "parallel.precision_recipe": ({ parallel }) => ({ precision: parallel.precisionRecipe }),
  "hardware.memory_margin": ({ hardware }) => ({ margin: hardware.memoryMargin }),
  "hardware.device": devices,
  "hardware.devices": devices,
  "training.micro_batch_size": ({ training }) => ({ microBatch: training.microBatchSize }),
};

/** Settings besides the model's that a training plan reads. */
export const TRAINING_SETTINGS: readonly string[] = [
  ...Object.keys(OPTIONS),
  ...["training.batch_size", "training.seq_len"],
];

/** Of the settings that the file, what it extends or --set gives; the others are searched. */
export function pinsOf(config: ResolvedConfig): PinnedOptions {
  const given = Object.entries(OPTIONS).filter(([path]) => config.why[path]!.startsWith("given"));
  return Object.assign({}, ...given.map(([, pin]) => pin(config))) as PinnedOptions;
}

/** What the command line gives goes before what a file says. */
export function withPins<T extends object>(given: T, pins: PinnedOptions, command: Command): T {
  const open = Object.entries(pins).filter(([option]) => !isGiven(command, option));
  return { ...given, ...Object.fromEntries(open) };
}

/**
 * The configuration of a preset or a run file with the settings of --set, which are warned of where they do not act;
 * undefined for a model that has none. `read` are the settings besides the model's that the verb uses.
 * @throws ConfigError for settings of a model that is read from a file.
 */
export async function openSettings(
  model: string,
  { set = [], verb, read }: { set?: readonly string[] | undefined; verb: string; read: readonly string[] },
): Promise<ResolvedConfig | undefined> {
  const changes = assignments(set);
  if (presetNames().includes(model) || isRunFile(model)) {
    const config = await openConfig(model, changes);
    warnOfIdle(config, changes, verb, read);
    return config;
  }
  if (set.length === 0) return undefined;
  throw new ConfigError("--set", "must change a preset or a run file", model, "edit the config.json instead");
}

/** Says which settings of --set do not act on what a verb plans. */
function warnOfIdle(
  config: ResolvedConfig,
  set: Readonly<Record<string, unknown>>,
  verb: string,
  read: readonly string[],
): void {
  const reasons = new Map(idleSettings(config, "plan").map(({ path, reason }) => [path, reason]));
  for (const parameter of Object.keys(set).map((key) => findParameter(key))) {
    const path = pathOf(parameter);
    const isRead = parameter.section === "model" || read.includes(path);
    const reason = isRead ? reasons.get(path) : `fathom ${verb} does not use it`;
    if (reason !== undefined) process.stderr.write(`warning: --set ${path} changes nothing: ${reason}\n`);
  }
}

/** What the training of V3.2 is planned as. */
export function trainingNotes({ indexNHeads, indexTopk }: ModelConfig): string[] {
  if (indexNHeads === 0) return [];
  const chosen = `the indexer's choice of ${indexTopk} keys is a mask`;
  return [`attention is planned as dense, with the indexer's own work: in training ${chosen} over whole attention`];
}

/** @throws ConfigError when neither the command line nor a run file names devices. */
export function neededGpus(gpus: string | undefined): string {
  if (gpus !== undefined) return gpus;
  throw new ConfigError("--gpus", "must be given, or hardware.device in a run file", undefined, "for example 8xH200");
}
