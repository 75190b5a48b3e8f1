/** What a run file says to the planning verbs: the options that its settings stand for, and what its model needs said. */

import type { Command } from "commander";
import type { ModelConfig, ResolvedConfig } from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import type { Recompute, Schedule, ZeroStage } from "../planner/index.ts";
import { isGiven } from "./options.ts";

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

/** Parallel and hardware settings by path, with the options that they stand for. */
export function optionsOf({ parallel, hardware, training }: ResolvedConfig): Readonly<Record<string, PinnedOptions>> {
  const gpus = { gpus: `${hardware.devices}x${hardware.device}` };
  return {
    ...Object.fromEntries(DEGREES.map((name) => [`parallel.${name}`, { [name]: parallel[name] }])),
    "parallel.zero": { zero: parallel.zero as ZeroStage },
    "parallel.recompute": { recompute: parallel.recompute },
    "parallel.pipeline_schedule": { schedule: parallel.pipelineSchedule },
    "parallel.precision_recipe": { precision: parallel.precisionRecipe },
    "hardware.memory_margin": { margin: hardware.memoryMargin },
    "hardware.device": gpus,
    "hardware.devices": gpus,
    "training.micro_batch_size": { microBatch: training.microBatchSize },
  };
}

/** Of the settings that the file, what it extends or --set gives; the others are searched. */
export function pinsOf(config: ResolvedConfig): PinnedOptions {
  const given = Object.entries(optionsOf(config)).filter(([path]) => config.why[path]!.startsWith("given"));
  return Object.assign({}, ...given.map(([, pin]) => pin)) as PinnedOptions;
}

/** What the command line gives goes before what a file says. */
export function withPins<T extends object>(given: T, pins: PinnedOptions, command: Command): T {
  const open = Object.entries(pins).filter(([option]) => !isGiven(command, option));
  return { ...given, ...Object.fromEntries(open) };
}

/** V3.2 reads the keys that its indexer picks; the planner has no rows for that. */
export function modelNotes({ indexNHeads, indexTopk }: ModelConfig): string[] {
  if (indexNHeads === 0) return [];
  const cause = `its indexer leaves ${indexTopk} keys to each query`;
  return [`planned as dense attention, though ${cause}: beyond that context FLOPs and cache reads are too high`];
}

/** @throws ConfigError when neither the command line nor a run file names devices. */
export function neededGpus(gpus: string | undefined): string {
  if (gpus !== undefined) return gpus;
  throw new ConfigError("--gpus", "must be given, or hardware.device in a run file", undefined, "for example 8xH200");
}
