/** What the training plans share: options that say what is trained on what, and the job that they make. */

import { Option, type Command } from "commander";
import { openModel } from "../blueprint/node.ts";
import type { TrainingConfig } from "../config/index.ts";
import { ConfigError, nearest } from "../core/errors.ts";
import {
  CALIBRATED_ENGINES,
  ASSUMED,
  engineEvaluator,
  frozenWeightBytes,
  modelShape,
  parseGpus,
  precisionRecipe,
  SCHEDULES,
  withAdapters,
  withoutMtp,
  type Device,
  type ModelShape,
  type PrecisionRecipe,
  type Recompute,
  type Schedule,
  type TrainingEvaluator,
  type ZeroStage,
} from "../planner/index.ts";
import { userDevice } from "./hardware-file.ts";
import { checkPartners, collect, integer, number } from "./options.ts";
import {
  DEGREES,
  openSettings,
  pinsOf,
  planName,
  TRAINING_SETTINGS,
  trainingNotes,
  withPins,
  type PinnedOptions,
} from "./plan-settings.ts";
import { helpOf } from "./setting-option.ts";

export interface JobOptions {
  readonly gpus: string;
  readonly precision: string;
  readonly engine?: string;
  readonly globalBatch?: number;
  readonly seq?: number;
  readonly schedule?: Schedule;
  readonly margin: number;
  readonly mtp: boolean;
  readonly lossChunks: number;
  readonly loraRank?: number;
  readonly loraTargets: string;
  readonly frozen: string;
  readonly hardware?: string;
  readonly set?: string[];
  readonly tp?: number;
  readonly pp?: number;
  readonly vp?: number;
  readonly cp?: number;
  readonly ep?: number;
  readonly etp?: number;
  readonly dp?: number;
  readonly zero?: ZeroStage;
  readonly recompute?: Recompute;
  readonly microBatch?: number;
  readonly json?: boolean;
}

const ATTENTION = "attn.wq,attn.wq_a,attn.wq_b,attn.wk,attn.wv,attn.wkv_a,attn.wkv_b,attn.wo";

/** Adds the options of JobOptions, without those that say how many sequences there are. */
export function withJobOptions(command: Command): Command {
  command
    .option("--gpus <count x name>", "devices, for example 2048xH800", "1xH100")
    .option("--precision <recipe>", helpOf("parallel.precision_recipe", "bf16, fp8, bf16-bf16-moments, …"), "bf16")
    .option(
      "--engine <name>",
      "engine whose efficiency is taken: deepseek, megatron, automodel, torchtitan (default: none, a general assumption)",
    )
    .option("--seq <n>", helpOf("training.seq_len", "default: the preset's"), integer("--seq", 1))
    .addOption(
      new Option("--schedule <name>", helpOf("parallel.pipeline_schedule", "without virtual stages")).choices([
        ...SCHEDULES,
      ]),
    )
    .option("--margin <share>", helpOf("hardware.memory_margin"), number("--margin", 0.01, 1), ASSUMED.memoryMargin)
    .option("--no-mtp", "train without the MTP layers")
    .option("--loss-chunks <n>", "parts in which logits and loss are computed", integer("--loss-chunks", 1), 1)
    .option("--lora-rank <r>", "train adapters of this rank, and nothing else", integer("--lora-rank", 1))
    .option("--lora-targets <names>", "matrices with adapters", ATTENTION)
    .option("--frozen <format>", helpOf("adapter.lora_base", "bf16, fp8, nf4"), "bf16")
    .option("--hardware <file>", "hardware file with rows of your own")
    .option("--set <key=value>", "another setting of a preset; may be given several times", collect);
  for (const name of DEGREES)
    command.option(`--${name} <n>`, helpOf(`parallel.${name}`, "default: searched"), integer(`--${name}`, 1));
  return command
    .option("--zero <stage>", helpOf("parallel.zero", "default: searched"), integer("--zero", 0, 3))
    .option(
      "--recompute <what>",
      helpOf("parallel.recompute", "none, selective, full or first-N per cent; default: searched"),
      recomputeSetting,
    )
    .option("--json", "one JSON document on stdout");
}

/** Adds all options of JobOptions. */
export function withSearchOptions(command: Command): Command {
  return withJobOptions(command)
    .option("--global-batch <n>", helpOf("training.batch_size", "default: the preset's"), integer("--global-batch", 1))
    .option("--micro-batch <n>", helpOf("training.micro_batch_size", "default: searched"), integer("--micro-batch", 1));
}

/** @throws ConfigError for another word. */
function recomputeSetting(text: string): Recompute {
  if (/^(none|selective|full|first-[1-9]\d?)%?$/.test(text)) return text.replace("%", "") as Recompute;
  throw new ConfigError("--recompute", "must be none, selective, full or first-N with N from 1 to 99", text);
}

/** A model to train on devices, with its evaluator. */
export interface PlanJob {
  readonly name: string;
  readonly device: Device;
  readonly world: number;
  readonly globalBatchSize: number;
  readonly seqLen: number;
  readonly evaluator: TrainingEvaluator;
  /** The options, with the settings of a run file where none were given. */
  readonly options: JobOptions;
  /** What the reader of the plan must know. */
  readonly notes: readonly string[];
}

/** @throws ConfigError for an engine without published run. */
function checkEngine(engine: string | undefined): void {
  if (engine === undefined || CALIBRATED_ENGINES.includes(engine)) return;
  const near = nearest(engine, CALIBRATED_ENGINES);
  const rule = `must be one of ${CALIBRATED_ENGINES.join(", ")}`;
  throw new ConfigError("--engine", rule, engine, near === undefined ? undefined : `did you mean ${near}?`);
}

/** Devices before Ampere have no bf16. */
function deviceNotes({ title, peaks }: Device, { compute }: PrecisionRecipe): string[] {
  if (compute !== "bf16" || peaks.bf16 !== undefined || peaks.fp16 === undefined) return [];
  return [`${title} has no bf16: products are planned at its fp16 peak; --precision fp16 plans fp16 states too`];
}

/**
 * @param command - the one that was called; what it gives goes before the settings of a run file.
 * @throws ConfigError for a model, device or setting that is not known or missing.
 */
export async function openJob(model: string, given: JobOptions, command: Command): Promise<PlanJob> {
  checkPartners(command, { loraTargets: "loraRank", frozen: "loraRank" });
  const opened = await openShape(model, given.set);
  const options = withPins(given, opened.pins, command);
  const { name, shape: whole, training } = opened;
  checkEngine(options.engine);
  const { count, name: deviceName } = parseGpus(options.gpus);
  const device = await userDevice(deviceName, options.hardware);
  const world = worldOf(count, options);
  const shape = adapted(options.mtp ? whole : withoutMtp(whole), options);
  const recipe = precisionRecipe(options.precision);
  const cluster = { device, count: world };
  const { engine, margin, lossChunks } = options;
  const frozenBytes = frozenWeightBytes(options.frozen);
  const evaluator = engineEvaluator({ shape, recipe, cluster, engine, margin, lossChunks, frozenBytes });
  const globalBatchSize = options.globalBatch ?? training?.batchSize;
  if (globalBatchSize === undefined) {
    throw new ConfigError("--global-batch", "must be given for a model without preset", undefined, "for example 1024");
  }
  const seqLen = options.seq ?? training?.seqLen ?? 4096;
  const notes = [...opened.notes, ...deviceNotes(device, recipe)];
  return { name, device, world, evaluator, globalBatchSize, seqLen, options, notes };
}

/** Degrees that are all given say how many devices there are; a single name then stands for each of them. */
function worldOf(count: number, { gpus, tp, pp, cp = 1, dp }: JobOptions): number {
  const isCounted = /^\s*\d+\s*[x×*]/.test(gpus);
  return !isCounted && tp !== undefined && pp !== undefined && dp !== undefined ? tp * pp * cp * dp : count;
}

interface OpenedShape {
  readonly name: string;
  readonly shape: ModelShape;
  readonly training: TrainingConfig | undefined;
  readonly notes: readonly string[];
  /** Settings of a run file or of --set, for options that were not given. */
  readonly pins: PinnedOptions;
}

async function openShape(model: string, set?: readonly string[]): Promise<OpenedShape> {
  const config = await openSettings(model, { set, verb: "plan", read: TRAINING_SETTINGS });
  if (config === undefined) {
    const opened = await openModel(model);
    const shape = modelShape(opened.model);
    return { name: opened.name, shape, training: undefined, notes: trainingNotes(opened.model), pins: {} };
  }
  return {
    name: planName(model),
    shape: modelShape(config.model),
    training: config.training,
    notes: trainingNotes(config.model),
    pins: pinsOf(config),
  };
}

/** @throws ConfigError when no matrix has one of the names. */
function adapted(shape: ModelShape, { loraRank, loraTargets }: JobOptions): ModelShape {
  if (loraRank === undefined) return shape;
  const targets = loraTargets.split(",").map((name) => name.trim());
  const names = shape.kinds.flatMap(({ parameters }) => parameters.map(({ name }) => name));
  if (!targets.some((target) => names.some((name) => name === target || name.endsWith(`.${target}`)))) {
    const known = [...new Set(names)].join(", ");
    throw new ConfigError("--lora-targets", "must name a matrix of the model", loraTargets, `its parameters: ${known}`);
  }
  return withAdapters(shape, { rank: loraRank, targets });
}
