/** `fathom plan export`: the launch files of a plan, as a folder. */

import { Command, Option } from "commander";
import { findParameter, presetNames, resolveConfig, type ModelConfig, type TrainingConfig } from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import { nodeFiles } from "../formats/node.ts";
import {
  CLUSTERS,
  devicesPerNode,
  ASSUMED,
  ENGINE_TASKS,
  exportFastest,
  exportPlan,
  findEngine,
  ggufMix,
  parseGpus,
  precisionRecipe,
  type ClusterName,
  type Device,
  type ExportRequest,
  type LaunchFile,
  type PinnedLayout,
  SCHEDULES,
  type Recompute,
  type Schedule,
} from "../planner/index.ts";
import { writeLaunchFolder } from "./launch-folder.ts";
import { userDevice } from "./hardware-file.ts";
import { assignments, collect, integer, number } from "./options.ts";
import { print, printJson } from "./output.ts";
import { parseBytes } from "./plan-local.ts";
import { isRunFile, neededGpus, pinsOf, planName, withPins, type PinnedOptions } from "./plan-settings.ts";
import { openConfig } from "./run-files.ts";
import { helpOf } from "./setting-option.ts";

interface ExportOptions {
  readonly engine: string;
  readonly cluster?: ClusterName;
  readonly gpus?: string;
  readonly out: string;
  readonly devicesPerNode?: number;
  readonly image?: string;
  readonly hosts?: string;
  readonly flag?: string[];
  readonly env?: string[];
  readonly set?: string[];
  readonly margin?: number;
  readonly tp?: number;
  readonly pp?: number;
  readonly vp?: number;
  readonly cp?: number;
  readonly ep?: number;
  readonly etp?: number;
  readonly zero?: number;
  readonly dp?: number;
  readonly globalBatch?: number;
  readonly seq?: number;
  readonly schedule?: Schedule;
  readonly mtp: boolean;
  readonly recompute?: Recompute;
  readonly microBatch?: number;
  readonly precision: string;
  readonly context: number;
  readonly batch?: number;
  readonly kv: "bf16" | "fp8";
  readonly drafts: number;
  readonly expertParallel: boolean;
  readonly quant: string;
  readonly ram: number;
  readonly cpu?: string;
  readonly ramBandwidth: number;
  readonly hardware?: string;
  readonly json?: boolean;
}

/** Two channels of DDR5-5600, as in a usual desktop. */
const DESKTOP_RAM_GB_PER_S = 89.6;

const degree = (name: string): [string, string, (text: string) => number] => [
  `--${name} <n>`,
  helpOf(`parallel.${name}`, "default: searched"),
  integer(`--${name}`, 1),
];

export function planExportCommand(): Command {
  const engines = Object.keys(ENGINE_TASKS).join(", ");
  return new Command("export")
    .description("write the files that launch a plan in another engine")
    .argument("<model>", "a preset, a run file (.yaml), a config.json, a checkpoint folder or a .gguf file")
    .requiredOption("--engine <name>", engines)
    .option("--gpus <count x name>", "devices in all, for example 1024xH100 (default: those of the run file)")
    .requiredOption("--out <dir>", "folder to write; it must be absent, empty or an earlier export")
    .addOption(new Option("--cluster <name>", "what starts the nodes (default: you do)").choices(CLUSTERS))
    .option("--devices-per-node <n>", helpOf("hardware.devices_per_node"), integer("--devices-per-node", 1))
    .option("--image <name>", "container image, for Kubernetes")
    .option("--hosts <names>", "host names with commas between, for MPI, Ray and DeepSpeed")
    .option("--flag <text>", "another flag for the engine, --name value; may be given several times", collect)
    .option("--env <name=value>", "another variable for the engine; may be given several times", collect)
    .option("--set <key=value>", "change a setting, such as lr or batch_size; may be given several times", collect)
    .option("--margin <share>", helpOf("hardware.memory_margin"), number("--margin", 0.01, 1), ASSUMED.memoryMargin)
    .option(...degree("tp"))
    .option(...degree("pp"))
    .option(...degree("vp"))
    .option(...degree("cp"))
    .option(...degree("ep"))
    .option(...degree("etp"))
    .option(...degree("dp"))
    .option("--global-batch <n>", helpOf("training.batch_size", "default: the setting"), integer("--global-batch", 1))
    .option("--seq <n>", helpOf("training.seq_len", "default: the setting"), integer("--seq", 1))
    .addOption(
      new Option("--schedule <name>", helpOf("parallel.pipeline_schedule", "without virtual stages")).choices([
        ...SCHEDULES,
      ]),
    )
    .option("--no-mtp", "train without the MTP layers")
    .option("--zero <stage>", helpOf("parallel.zero", "default: searched"), integer("--zero", 0, 3))
    .option(
      "--recompute <what>",
      helpOf("parallel.recompute", "none, selective, full or first-N per cent; default: searched"),
      recompute,
    )
    .option("--micro-batch <n>", helpOf("training.micro_batch_size", "default: searched"), integer("--micro-batch", 1))
    .option("--precision <recipe>", helpOf("parallel.precision_recipe"), "bf16")
    .option("--context <tokens>", "longest context of a request, for serving", integer("--context", 1), 8192)
    .option(
      "--batch <n>",
      helpOf("serving.max_sequences", "for serving; default: 64, or 1 for llama.cpp"),
      integer("--batch", 1),
    )
    .addOption(
      new Option("--kv <format>", helpOf("quantization.kv_cache_dtype", "for serving"))
        .choices(["bf16", "fp8"])
        .default("bf16"),
    )
    .option("--drafts <n>", helpOf("serving.draft_tokens", "for serving"), integer("--drafts", 0, 16), 0)
    .option("--no-expert-parallel", "cut every expert instead of dealing them out, for serving")
    .option("--quant <mix>", "GGUF mix, for llama.cpp", "Q4_K_M")
    .addOption(
      new Option("--ram <size>", "memory of the machine, for llama.cpp")
        .argParser((text) => parseBytes("--ram", text))
        .default(256 * 2 ** 30, "256GiB"),
    )
    .option("--cpu <name>", "processor whose memory bandwidth is meant, for llama.cpp")
    .option(
      "--ram-bandwidth <GB/s>",
      "of the memory, without --cpu",
      number("--ram-bandwidth", 1),
      DESKTOP_RAM_GB_PER_S,
    )
    .option("--hardware <file>", "hardware file with rows of your own")
    .option("--json", "one JSON document on stdout")
    .action(exportFolder);
}

/** @throws ConfigError for another word. */
function recompute(text: string): Recompute {
  if (/^(none|selective|full|first-[1-9]\d?)$/.test(text)) return text as Recompute;
  throw new ConfigError("--recompute", "must be none, selective, full or first-N with N from 1 to 99", text);
}

async function exportFolder(model: string, given: ExportOptions, command: Command): Promise<void> {
  const opened = await openForExport(model, given);
  const options = withPins(given, opened.pins, command);
  const files = await filesFor(opened, options, planArguments(model, options));
  await writeLaunchFolder(nodeFiles, options.out, files);
  const paths = files.map(({ path }) => path);
  if (options.json === true) return printJson({ folder: options.out, files: paths });
  print(`${options.out}: ${paths.join(", ")}`);
  print(`Read ${options.out}/PLAN.md first.`);
}

/** What names the same model to `fathom plan`. */
function planArguments(model: string, { set = [], hardware }: ExportOptions): string[] {
  const changes = set.filter((text) => findParameter(text.slice(0, text.indexOf("="))).section === "model");
  const file = hardware === undefined ? [] : ["--hardware", hardware];
  return [model, ...changes.flatMap((change) => ["--set", change]), ...file];
}

interface Opened {
  readonly name: string;
  readonly model: ModelConfig;
  readonly training: TrainingConfig;
  /** Settings of a run file for options that were not given. */
  readonly pins: PinnedOptions;
}

/** A preset brings its training settings; a model from files has the usual ones. */
async function openForExport(model: string, { set = [] }: ExportOptions): Promise<Opened> {
  const changes = assignments(set);
  if (presetNames().includes(model) || isRunFile(model)) {
    const config = await openConfig(model, changes);
    const name = planName(model);
    return { name, model: config.model, training: config.training, pins: pinsOf(config) };
  }
  for (const key of Object.keys(changes)) {
    if (findParameter(key).section !== "model") continue;
    throw new ConfigError(
      `--set ${key}`,
      "must not change a model that is read from a file",
      model,
      "edit its config.json",
    );
  }
  const { openModel } = await import("../blueprint/node.ts");
  const opened = await openModel(model);
  return { name: opened.name, model: opened.model, training: resolveConfig({}, changes).training, pins: {} };
}

type Common = Omit<ExportRequest, "job">;

async function filesFor(
  { name, model, training }: Opened,
  options: ExportOptions,
  planArguments: readonly string[],
): Promise<LaunchFile[]> {
  const engine = findEngine(options.engine);
  const { count, name: deviceName } = parseGpus(neededGpus(options.gpus));
  const common: Common = {
    engine,
    model,
    modelName: name,
    planArguments,
    ...machines(count, await userDevice(deviceName, options.hardware), options),
    ...extras(options),
  };
  switch (ENGINE_TASKS[engine]) {
    case "train": {
      const { globalBatch: batchSize = training.batchSize, seq: seqLen = training.seqLen, dp, schedule, mtp } = options;
      const asked = { ...training, batchSize, seqLen, tokensPerStep: batchSize * seqLen };
      const job = { kind: "train", precision: precisionRecipe(options.precision), training: asked } as const;
      const trained = mtp ? model : { ...model, nMtpLayers: 0 };
      const limits = { globalBatchSize: batchSize, seqLen, dp, schedule, pinned: pinned(options) };
      return exportFastest({ ...common, model: trained, job, ...limits });
    }
    case "serve":
      return exportPlan({ ...common, job: servingJob(count, common, options) });
    case "local":
      return exportPlan({ ...common, job: await localJob(count, common.device, options) });
  }
}

/** Racks of 72 devices are made of computers with 4. */
const DEVICES_OF_A_TRAY = 4;
const MOST_DEVICES_OF_A_NODE = 16;

function machines(
  count: number,
  each: Device,
  options: ExportOptions,
): Pick<ExportRequest, "device" | "nodes" | "devicesPerNode"> {
  const linked = devicesPerNode({ device: each, count });
  const perNode = options.devicesPerNode ?? (linked > MOST_DEVICES_OF_A_NODE ? DEVICES_OF_A_TRAY : linked);
  if (count % perNode !== 0) {
    const cure = "give --devices-per-node or another --gpus";
    throw new ConfigError("--gpus", `must fill whole nodes of ${perNode} devices`, count, cure);
  }
  return { device: each, nodes: count / perNode, devicesPerNode: perNode };
}

function extras(options: ExportOptions): Partial<ExportRequest> {
  const { cluster, image, hosts, flag, env, margin } = options;
  const given = { cluster, image, hosts: hosts?.split(","), flags: flag, environment: env, margin };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

function pinned({ tp, pp, vp, cp, ep, etp, zero, recompute, microBatch }: ExportOptions): PinnedLayout {
  const stage = zero as PinnedLayout["zero"];
  return {
    tp,
    pp,
    vp,
    cp,
    ep,
    etp,
    zero: stage,
    recompute,
    microBatchSize: microBatch,
  };
}

/** One node serves with tensor parallelism; several nodes share the experts of copies of the attention. */
function servingJob(count: number, { nodes }: Common, options: ExportOptions): ExportRequest["job"] {
  const pp = options.pp ?? 1;
  const tp = options.tp ?? (nodes === 1 ? count / pp : 1);
  const { context, batch = 64, kv, drafts, expertParallel } = options;
  return {
    kind: "serve",
    tp,
    pp,
    dp: count / (tp * pp),
    expertParallel: expertParallel && count / pp > 1 && options.engine !== "deepseek-demo",
    contextTokens: context,
    maxSequences: batch,
    kvCache: kv,
    draftTokens: drafts,
  };
}

async function localJob(count: number, each: Device, options: ExportOptions): Promise<ExportRequest["job"]> {
  const { quant, ram, ramBandwidth, context, batch = 1 } = options;
  const cpu = options.cpu === undefined ? undefined : await userDevice(options.cpu, options.hardware);
  const machine = {
    vramBytes: count * each.memoryBytes,
    ramBytes: ram,
    vramBytesPerSec: each.memoryBytesPerSec,
    ramBytesPerSec: cpu?.memoryBytesPerSec ?? ramBandwidth * 1e9,
  };
  return { kind: "local", mix: ggufMix(quant), machine, contextTokens: context, maxSequences: batch };
}
