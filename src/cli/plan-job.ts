/** What the training plans share: options that say what is trained on what, and the job that they make. */

import { Option, type Command } from "commander";
import { blueprint } from "../blueprint/index.ts";
import { openModel } from "../blueprint/node.ts";
import { presetNames, resolveConfig, type TrainingConfig } from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import {
  createTrainingEvaluator,
  DEFAULT_MARGIN,
  efficiencyFor,
  frozenWeightBytes,
  modelShape,
  parseGpus,
  precisionRecipe,
  SCHEDULES,
  withAdapters,
  withoutMtp,
  type Device,
  type ModelShape,
  type Recompute,
  type Schedule,
  type TrainingEvaluator,
  type ZeroStage,
} from "../planner/index.ts";
import { userDevice } from "./hardware-file.ts";
import { assignments, collect, integer, number } from "./options.ts";

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
const DEGREES = ["tp", "pp", "vp", "cp", "ep", "etp", "dp"] as const;

/** Adds the options of JobOptions. */
export function withJobOptions(command: Command): Command {
  command
    .option("--gpus <count x name>", "devices, for example 2048xH800 (default: one H100)", "1xH100")
    .option("--precision <recipe>", "precision recipe: bf16, fp8, bf16-bf16-moments, …", "bf16")
    .option("--engine <name>", "engine whose efficiency is assumed: deepseek, megatron, automodel, torchtitan")
    .option("--global-batch <n>", "sequences of a step (default: the preset's)", integer("--global-batch", 1))
    .option("--seq <n>", "tokens of a sequence (default: the preset's)", integer("--seq", 1))
    .addOption(new Option("--schedule <name>", "pipeline without virtual stages").choices([...SCHEDULES]))
    .option("--margin <share>", "share of the memory to plan with", number("--margin", 0.01, 1), DEFAULT_MARGIN)
    .option("--no-mtp", "train without the MTP layers")
    .option("--loss-chunks <n>", "parts in which logits and loss are computed", integer("--loss-chunks", 1), 1)
    .option("--lora-rank <r>", "train adapters of this rank, and nothing else", integer("--lora-rank", 1))
    .option("--lora-targets <names>", "matrices with adapters", ATTENTION)
    .option("--frozen <format>", "format of the weights below adapters: bf16, fp8, nf4", "bf16")
    .option("--hardware <file>", "hardware file with rows of your own")
    .option("--set <key=value>", "another setting of a preset; may be given several times", collect);
  for (const name of DEGREES)
    command.option(`--${name} <n>`, `${name.toUpperCase()} (default: searched)`, integer(`--${name}`, 1));
  return command
    .option("--zero <stage>", "ZeRO stage (default: searched)", integer("--zero", 0, 3))
    .option("--recompute <what>", "none, selective, full or first-N per cent (default: searched)", recomputeSetting)
    .option("--micro-batch <n>", "sequences of one pass (default: searched)", integer("--micro-batch", 1))
    .option("--json", "one JSON document on stdout");
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
}

/** @throws ConfigError for a model, device or setting that is not known or missing. */
export async function openJob(model: string, options: JobOptions): Promise<PlanJob> {
  const { name, shape: whole, training } = await openShape(model, options.set);
  const { count, name: deviceName } = parseGpus(options.gpus);
  const device = await userDevice(deviceName, options.hardware);
  const world = worldOf(count, options);
  const shape = adapted(options.mtp ? whole : withoutMtp(whole), options);
  const recipe = precisionRecipe(options.precision);
  const cluster = { device, count: world };
  const efficiency = efficiencyFor({
    ...(options.engine === undefined ? {} : { engine: options.engine }),
    cluster,
    format: recipe.compute,
    family: shape.nRoutedExperts > 0 ? "moe" : "dense",
  });
  const evaluator = createTrainingEvaluator({
    ...{ shape, recipe, cluster, efficiency, margin: options.margin, lossChunks: options.lossChunks },
    frozenBytes: frozenWeightBytes(options.frozen),
  });
  const globalBatchSize = options.globalBatch ?? training?.batchSize;
  if (globalBatchSize === undefined) {
    throw new ConfigError("--global-batch", "must be given for a model without preset", undefined, "for example 1024");
  }
  return { name, device, world, evaluator, globalBatchSize, seqLen: options.seq ?? training?.seqLen ?? 4096 };
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
}

async function openShape(model: string, set: readonly string[] = []): Promise<OpenedShape> {
  if (presetNames().includes(model)) {
    const { model: settings, training } = resolveConfig(model, assignments(set));
    return { name: model, shape: modelShape(blueprint(settings)), training };
  }
  if (set.length > 0) throw new ConfigError("--set", "must change a preset", model, "edit the config.json instead");
  const opened = await openModel(model);
  return { name: opened.name, shape: modelShape(opened.blueprint), training: undefined };
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
