/** `fathom plan serve MODEL`: memory, prefill and decode of a served model, its batch curve, cost and energy. */

import { Command } from "commander";
import { openModel } from "../blueprint/node.ts";
import type { ModelConfig } from "../config/index.ts";
import {
  ASSUMED,
  BILL_NAMES,
  batchCurve,
  batchPoint,
  BOUND,
  costOf,
  energyOf,
  explainBill,
  KV_FORMATS,
  largestBatch,
  modelShape,
  parseGpus,
  parseSlo,
  planInference,
  type BatchPoint,
  type CurveSettings,
  type Device,
  type InferencePlan,
  type KvFormat,
  type ModelShape,
  type Quantity,
} from "../planner/index.ts";
import { ConfigError } from "../core/errors.ts";
import { userDevice } from "./hardware-file.ts";
import { checkPartners, collect, integer, number } from "./options.ts";
import { print, printJson, size, snake } from "./output.ts";
import { COMMON_LABELS, numberNamed, type Labels } from "./plan-numbers.ts";
import { printQuantity } from "./plan-report.ts";
import { neededGpus, openSettings, pinsOf, planName, withPins } from "./plan-settings.ts";
import { helpOf } from "./setting-option.ts";
import { formatTable } from "./table.ts";

interface ServeOptions {
  readonly gpus?: string;
  readonly tp: number;
  readonly weights: string;
  readonly kv: string;
  readonly expandedKv?: boolean;
  readonly context: number;
  readonly prompt?: number;
  readonly chunk: number;
  readonly cached: number;
  readonly batch?: number;
  readonly drafts: number;
  readonly acceptance: number;
  readonly overlap?: boolean;
  readonly redundantExperts: number;
  readonly slo?: string;
  readonly margin: number;
  readonly price: number;
  readonly hardware?: string;
  readonly set?: string[];
  readonly why?: string;
  readonly json?: boolean;
}

const NOTHING_FITS = 3;

export function serveCommand(): Command {
  return new Command("serve")
    .description("plan serving a model: memory, latency, throughput, cost")
    .argument("<model>", "a preset, a run file (.yaml), a config.json, a checkpoint folder or a .gguf file")
    .option("--gpus <count x name>", "devices, for example 16xH200 (default: those of the run file)")
    .option("--tp <n>", "devices that share a sequence", integer("--tp", 1), 1)
    .option("--weights <format>", "format of the weights: bf16, fp8, int8, int4, mxfp4, nvfp4", "fp8")
    .option("--kv <format>", helpOf("quantization.kv_cache_dtype", Object.keys(KV_FORMATS).join(", ")), "bf16")
    .option("--expanded-kv", "cache each head's keys and values in place of the latent")
    .option("--context <n>", "tokens that a sequence has cached", integer("--context", 0), 4096)
    .option("--prompt <n>", "tokens of a prompt (default: the context)", integer("--prompt", 1))
    .option("--chunk <n>", "tokens of one prefill pass", integer("--chunk", 1), 8192)
    .option("--cached <share>", "share of prompts that the prefix cache has", number("--cached", 0, 0.99), 0)
    .option("--batch <n>", helpOf("serving.max_sequences", "default: the most that fits"), integer("--batch", 1))
    .option("--drafts <n>", helpOf("serving.draft_tokens"), integer("--drafts", 0, 8), 0)
    .option("--acceptance <share>", "how often a draft is right", number("--acceptance", 0, 1), ASSUMED.draftAcceptance)
    .option("--overlap", "two micro-batches hide each other's communication")
    .option("--redundant-experts <n>", "copies of experts on each device", integer("--redundant-experts", 0), 0)
    .option("--slo <times>", "what must be kept, for example ttft=2s,tpot=50ms")
    .option("--margin <share>", helpOf("hardware.memory_margin"), number("--margin", 0.01, 1), ASSUMED.memoryMargin)
    .option("--price <amount>", "assumed price of a device for an hour, in $", number("--price", 0), 2)
    .option("--hardware <file>", "hardware file with rows of your own")
    .option("--set <key=value>", "another setting of a preset; may be given several times", collect)
    .option("--why <number>", "print where a number comes from, for example decode.step, bound or cost")
    .option("--json", "one JSON document on stdout")
    .action(serve);
}

/** A model to serve, with the options that its run file stands for. */
interface OpenedForServing {
  readonly name: string;
  readonly model: ModelConfig;
  readonly options: ServeOptions;
}

/** Settings besides the model's that `plan serve` reads. */
const READ = [
  ...["hardware.device", "hardware.devices", "hardware.memory_margin"],
  ...["parallel.tp", "quantization.kv_cache_dtype"],
];

async function openForServing(name: string, options: ServeOptions, command: Command): Promise<OpenedForServing> {
  const config = await openSettings(name, { set: options.set, verb: "plan serve", read: READ });
  if (config === undefined) return { ...(await openModel(name)), options };
  const { gpus, margin, tp } = pinsOf(config);
  const kv = config.why["quantization.kv_cache_dtype"]!.startsWith("given")
    ? config.quantization.kvCacheDtype
    : undefined;
  const pins = Object.entries({ gpus, margin, tp, kv }).filter(([, value]) => value !== undefined);
  return {
    name: planName(name),
    model: config.model,
    options: withPins(options, Object.fromEntries(pins), command),
  };
}

async function serve(name: string, given: ServeOptions, command: Command): Promise<void> {
  checkPartners(command, { acceptance: "drafts" });
  const opened = await openForServing(name, given, command);
  if (opened.model.architecture === "encoder") {
    throw new ConfigError("plan serve", "must be a decoder, which writes text", name, "fathom plan plans its training");
  }
  const { options } = opened;
  const { count, name: deviceName } = parseGpus(neededGpus(options.gpus));
  const device = await userDevice(deviceName, options.hardware);
  const shape = modelShape(opened.model);
  const settings = settingsOf(options, count);
  const chosen = choose(shape, device, settings, options.batch);
  if (chosen === undefined || !chosen.fits || !chosen.keepsSlo) process.exitCode = NOTHING_FITS;
  const curve = batchCurve(shape, device, settings);
  if (options.why !== undefined) {
    const { plan, batch } = chosen ?? curve[0]!;
    const atPeak = planInference(shape, device, { ...settings, ...BOUND, batch });
    const explained = explainServing(options.why, plan, atPeak, (name) =>
      explainCost(name, plan, device, { count, ...options }),
    );
    return options.json === true ? printJson(explained) : printQuantity(explained);
  }
  const bound = chosen && planInference(shape, device, { ...settings, ...BOUND, batch: chosen.batch });
  const bill = chosen && billOf(chosen.plan, device, count, options.price);
  if (options.json === true) {
    return printJson({
      ...{ model: opened.name, device: device.name, devices: count, margin: options.margin },
      chosen: chosen === undefined ? null : pointJson(chosen),
      bound: bound === undefined ? null : planJson(bound),
      bill: bill === undefined ? null : snake(bill),
      curve: curve.map(pointJson),
    });
  }
  print(
    `${opened.name} on ${count} × ${device.title}, tp ${options.tp}, ${options.weights} weights, ${options.kv} cache`,
  );
  print(`${options.context} tokens of context; ${options.margin} of ${size(device.memoryBytes)} may be used`);
  print(curveTable(curve, settings.slo !== undefined));
  if (chosen === undefined) return print(noBatch(curve[0]!, settings.slo !== undefined));
  if (!chosen.fits || !chosen.keepsSlo) print(failureOf(chosen));
  printChosen(chosen, bound!, { ...bill!, price: options.price });
}

function settingsOf(options: ServeOptions, devices: number): CurveSettings {
  const { kv, cached, slo, margin, prompt, expandedKv = false, overlap = false } = options;
  if (!Object.hasOwn(KV_FORMATS, kv)) {
    throw new ConfigError("--kv", `must be one of ${Object.keys(KV_FORMATS).join(", ")}`, kv);
  }
  const { tp, weights, context, chunk, drafts, acceptance, redundantExperts } = options;
  return {
    ...{ devices, tp, weights, context, chunk, drafts, acceptance, redundantExperts, expandedKv, overlap },
    kv: kv as KvFormat,
    cachedShare: cached,
    memoryShare: margin,
    ...(prompt === undefined ? {} : { prompt }),
    ...(slo === undefined ? {} : { slo: parseSlo(slo) }),
  };
}

/** The batch that was asked for, or the largest that fits and keeps the promise. */
function choose(shape: ModelShape, device: Device, settings: CurveSettings, batch?: number): BatchPoint | undefined {
  if (batch === undefined) return largestBatch(shape, device, settings);
  return batchPoint(shape, device, { ...settings, batch });
}

interface Bill {
  readonly costPerMillionTokens: number;
  readonly joulesPerToken: number | undefined;
}

/** Why not even the smallest batch will do. */
function noBatch(smallest: BatchPoint, promised: boolean): string {
  if (!smallest.fits || !promised) return failureOf(smallest);
  return `no batch fits and keeps the promise: ${failureOf(smallest)}`;
}

/** What a batch breaks, and what would help. */
function failureOf({ batch, plan, fits, broken }: BatchPoint): string {
  const times = { ttft: plan.prefill.ttftSeconds, tpot: plan.decode.tpotSeconds };
  const failures = [
    ...(fits
      ? []
      : [`does not fit: ${size(plan.totalBytes)} a device; take more devices or fewer bits (--weights, --kv)`]),
    ...broken.map((name) => `${name} fails: ${ms(times[name])}; ${CURES[name]}`),
  ];
  return `batch ${batch} ${failures.join("; ")}`;
}

const CURES = {
  ttft: "take a shorter --prompt, more devices in --tp or a larger --cached share",
  tpot: "take more devices in --tp, fewer bits (--weights, --kv) or --drafts",
} as const;

/** Of an hour of decoding at full batch. */
function billOf({ decode }: InferencePlan, device: Device, devices: number, price: number): Bill {
  const hour = { devices, seconds: 3600, tokens: decode.tokensPerSec * 3600 };
  return {
    costPerMillionTokens: costOf(hour, price).costPerMillionTokens,
    joulesPerToken: energyOf(hour, device)?.joulesPerToken,
  };
}

const ms = (seconds: number): string => `${(seconds * 1e3).toFixed(1)} ms`;

function curveTable(curve: readonly BatchPoint[], promised: boolean): string {
  return formatTable(
    {
      head: [
        "batch",
        "total memory",
        "time a token",
        "tokens/s",
        "tokens/s a device",
        "fits",
        ...(promised ? ["keeps"] : []),
      ],
      rows: curve.map(({ batch, plan, fits, keepsSlo }) => [
        String(batch),
        size(plan.totalBytes),
        ms(plan.decode.tpotSeconds),
        plan.decode.tokensPerSec.toFixed(0),
        plan.decode.tokensPerSecPerDevice.toFixed(0),
        fits ? "yes" : "no",
        ...(promised ? [keepsSlo ? "yes" : "no"] : []),
      ]),
    },
    "text",
  );
}

function printChosen({ batch, plan }: BatchPoint, bound: InferencePlan, bill: Bill & { readonly price: number }): void {
  const { decode, prefill } = plan;
  print(`\nbatch ${batch}`);
  for (const { name, bytes, meaning } of plan.memory)
    print(`  ${name.padEnd(18)} ${size(bytes).padStart(24)}  ${meaning}`);
  print(`  ${"total".padEnd(18)} ${size(plan.totalBytes).padStart(24)}  a device`);
  print(
    `decode     ${ms(decode.tpotSeconds)} a token; a step takes ${ms(decode.stepSeconds)}: memory ${ms(decode.memorySeconds)}, math ${ms(decode.mathSeconds)}, links ${ms(decode.commSeconds)}`,
  );
  print(
    `bound      ${ms(bound.decode.tpotSeconds)} a token with every peak reached; a step ${ms(bound.decode.stepSeconds)}: memory ${ms(bound.decode.memorySeconds)}, math ${ms(bound.decode.mathSeconds)}, links ${ms(bound.decode.commSeconds)}`,
  );
  print(
    `prefill    ${ms(prefill.ttftSeconds)} to the first token, ${prefill.tokensPerSecPerDevice.toFixed(0)} prompt tokens/s a device`,
  );
  const energy = bill.joulesPerToken === undefined ? "" : `, ${bill.joulesPerToken.toFixed(2)} J a token`;
  print(
    `cost       ${bill.costPerMillionTokens.toFixed(3)} $ a million tokens written at ${bill.price.toFixed(2)} $ a device-hour, an assumed price (--price changes it)${energy}`,
  );
}

/** Rows by the words under which they are printed. */
const SERVING_LABELS: Labels = {
  ...COMMON_LABELS,
  "total memory": "memory.total",
  "may be used": "memory.limit",
  decode: "decode.tpot",
  "time a token": "decode.tpot",
  step: "decode.step",
  memory: "decode.memory",
  math: "decode.math",
  links: "decode.comm",
  "tokens/s": "decode.all",
  "tokens/s a device": "decode.rate",
  prefill: "prefill.ttft",
  "first token": "prefill.ttft",
  "prompt tokens/s a device": "prefill.rate",
  "prefill tokens/s": "prefill.rate",
  "J a token": "bill.joules_per_token",
};

/**
 * `bound` and `bound decode.math` are numbers of the plan with every peak reached.
 * @param cost - explains a number of the bill.
 */
function explainServing(
  name: string,
  plan: InferencePlan,
  bound: InferencePlan,
  cost: (name: string) => Quantity,
): Quantity {
  const [, ofBound] = /^bound\b[ .]?(.*)$/i.exec(name) ?? [];
  if (ofBound !== undefined) {
    return bound.explain(numberNamed(bound.names, SERVING_LABELS, ofBound === "" ? "decode" : ofBound));
  }
  const found = numberNamed([...plan.names, ...BILL_NAMES], SERVING_LABELS, name);
  return plan.names.includes(found) ? plan.explain(found) : cost(found);
}

/** The bill of a million tokens written. */
function explainCost(
  name: string,
  plan: InferencePlan,
  device: Device,
  { count, price }: { count: number; price: number },
): Quantity {
  return explainBill(name, { devices: count, tokens: 1e6, rate: plan.explain("decode.all") }, device, price);
}

function pointJson({ batch, plan, fits, keepsSlo }: BatchPoint): object {
  return snake({ batch, fits, keepsSlo, ...planJson(plan) });
}

function planJson({ memory, totalBytes, kvTokenBytes, decode, prefill }: InferencePlan): object {
  return snake({ memory, totalBytes, kvTokenBytes, decode, prefill });
}
