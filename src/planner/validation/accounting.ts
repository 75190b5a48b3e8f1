/**
 * What must come out of arithmetic alone: parameters, FLOPs per token, identities of published figures, money, cache,
 * bubbles. A row computes with the planner's own functions, or divides published figures that must agree with each other; its
 * inputs stand beside it.
 */

import { blueprint, countParameters } from "../../blueprint/index.ts";
import { resolveConfig, type TrainingConfig } from "../../config/index.ts";
import { allToAllSeconds } from "../all-to-all.ts";
import { costOf, revenueOf } from "../cost.ts";
import { device } from "../devices.ts";
import { peakOf } from "../hardware.ts";
import { planInference } from "../inference.ts";
import { kvBytesPerToken } from "../kv-cache.ts";
import type { Schedule } from "../layout.ts";
import { bubbleFraction } from "../schedules.ts";
import { flopsPerToken } from "../work.ts";
import { publishedShape } from "./models.ts";

export interface CheckedRow {
  readonly id: string;
  readonly what: string;
  readonly unit: string;
  readonly published: number;
  readonly predicted: number;
  /** Largest relative error that is allowed. */
  readonly bar: number;
  readonly inputs: string;
  readonly source: string;
}

const BAR = 0.005;
const DAY = 86_400;
const H800_HOUR_DOLLARS = 2;

type Row = Omit<CheckedRow, "bar">;

/** Every row of the accounting part. */
export function accountingRows(): CheckedRow[] {
  return [
    ...parameterRows(),
    ...flopRows(),
    ...trainingIdentities(),
    ...cacheRows(),
    ...scheduleRows(),
    ...serviceRows(),
    ...bubbleRows(),
    ...utilisationRows(),
  ].map((row) => ({ ...row, bar: BAR }));
}

const PARAMETERS: readonly (readonly [string, number, string])[] = [
  ["deepseek-llm-7b", 6_910_365_696, "deepseek-ai/deepseek-llm-7b-base, safetensors index"],
  ["deepseek-llm-67b", 67_425_001_472, "deepseek-ai/deepseek-llm-67b-base, safetensors index"],
  ["deepseek-moe-16b", 16_375_728_128, "deepseek-ai/deepseek-moe-16b-base, safetensors index"],
  ["deepseek-v2-lite", 15_706_484_224, "deepseek-ai/DeepSeek-V2-Lite, safetensors index"],
  ["deepseek-v2", 235_741_434_880, "deepseek-ai/DeepSeek-V2, safetensors index"],
  ["deepseek-v3", 671_026_419_200, "deepseek-ai/DeepSeek-V3, safetensors index without MTP, copies and scales"],
];

function parameterRows(): Row[] {
  return PARAMETERS.map(([model, published, source]) => ({
    id: model,
    what: "parameters",
    unit: "parameters",
    published,
    predicted: countParameters(blueprint(resolveConfig(model).model)).total,
    inputs: "config.json",
    source,
  }));
}

/** Published TFLOP/s over published tokens/s of one device: what the engine counts for a token. */
const FLOP_PAIRS = [
  ["G4", "deepseek-v3", 4096, false, 216, 865, "Automodel, 1,024 H100"],
  ["G5", "deepseek-v3", 4096, false, 250, 1002, "Automodel, 256 H100"],
  ["G7", "deepseek-v3", 4096, true, 1635, 6288, "Megatron-Bridge 26.08, GB300"],
  ["G7", "deepseek-v3", 4096, true, 1276, 4912, "Megatron-Bridge 26.08, GB200"],
  ["G7", "deepseek-v3", 4096, true, 920, 3541, "Megatron-Bridge 26.06, B300"],
  ["G7", "deepseek-v3", 4096, false, 961, 3848, "Megatron-Bridge 25.11, GB300"],
  ["G7", "deepseek-v3", 4096, true, 557, 2139, "Megatron-Bridge 25.11, B200"],
  ["G6", "llama3-70b", 8192, false, 389, 866.8, "Automodel, 64 H100"],
  ["G9", "llama3-405b", 8192, false, 822, 326, "Megatron-Bridge, 1,024 H100 fp8"],
  ["G9", "llama3-405b", 8192, false, 3575, 1413, "Megatron-Bridge, GB300 NVFP4"],
] as const;

function flopRows(): Row[] {
  return FLOP_PAIRS.map(([id, model, seqLen, mtp, tflops, rate, source]) => ({
    id,
    what: `${model} training${mtp ? " with MTP" : ""}`,
    unit: "GFLOP/token",
    published: (tflops * 1e3) / rate,
    predicted: flopsPerToken(publishedShape(model, mtp), { seqLen, mtp }).training / 1e9,
    inputs: `sequence ${seqLen}, causal, ${tflops} TFLOP/s at ${rate} tokens/s`,
    source,
  }));
}

const V3_REPORT = "DeepSeek-V3 report, table 1 and 4.2";
const INSIGHTS = "Insights into DeepSeek-V3, arXiv 2505.09343";

function trainingIdentities(): Row[] {
  const gpus = 2048;
  const hoursPerTrillion = 180e3;
  const rate = 1e12 / (hoursPerTrillion * 3600);
  const { tokensPerStep } = resolveConfig("deepseek-v3").training;
  const g2Rate = 272.8e9 / (DAY * gpus);
  const flops = (causal: boolean): number =>
    flopsPerToken(publishedShape("deepseek-v3"), { seqLen: 4096, mtp: false, causal }).training;
  const hours = (2664 + 119 + 5) * 1e3;
  const whole = { devices: gpus, seconds: (hours / gpus) * 3600, tokens: 14.8e12 };
  const g1 = { id: "G1", inputs: "180 K GPU-hours a trillion tokens on 2,048 H800", source: V3_REPORT };
  const g2 = { id: "G2", inputs: "272.8 B tokens a day on 2,048 H800, sequence 4096, no MTP", source: INSIGHTS };
  return [
    {
      ...{ ...g1, what: "days for a trillion tokens, to one decimal", unit: "days", published: 3.7 },
      predicted: Number((1e12 / (rate * gpus * DAY)).toFixed(1)),
    },
    { ...g1, what: "tokens of a step", unit: "tokens", published: 62.9e6, predicted: tokensPerStep },
    { ...g1, what: "GPU-hours of V3", unit: "hours", published: 2.788e6, predicted: costOf(whole, 2).deviceHours },
    { ...g1, what: "price of V3", unit: "$", published: 5.576e6, predicted: costOf(whole, H800_HOUR_DOLLARS).cost },
    {
      ...g1,
      what: "seconds of a step, as G2 prints it",
      unit: "s",
      published: 19.926,
      predicted: tokensPerStep / (rate * gpus),
    },
    { ...g2, what: "seconds of a step", unit: "s", published: 19.926, predicted: tokensPerStep / (g2Rate * gpus) },
    { ...g2, what: "causal", unit: "TFLOP/s", published: 385, predicted: (g2Rate * flops(true)) / 1e12 },
    { ...g2, what: "not causal", unit: "TFLOP/s", published: 432, predicted: (g2Rate * flops(false)) / 1e12 },
    {
      ...{ id: "G3", what: "GPU-hours saved by V2 against 67B", unit: "%", published: 42.5 },
      predicted: (1 - costOf({ devices: 1, seconds: 172.8e3 * 3600, tokens: 1e12 }, 1).cost / 300.6e3) * 100,
      ...{ inputs: "172.8 K against 300.6 K hours a trillion tokens", source: "DeepSeek-V2 report 3.2.3" },
    },
  ];
}

function cacheRows(): Row[] {
  const v2 = publishedShape("deepseek-v2");
  const dense = publishedShape("deepseek-llm-67b");
  const sixBits = (kvBytesPerToken(v2) * 6) / 16;
  const kv = { what: "cache of a token", unit: "bytes", inputs: "bf16, latent", source: "DeepSeek-V2 report, table 1" };
  return [
    { ...kv, id: "V2-Lite", published: 31_104, predicted: kvBytesPerToken(publishedShape("deepseek-v2-lite")) },
    { ...kv, id: "V2", published: 69_120, predicted: kvBytesPerToken(v2) },
    { ...kv, id: "V3", published: 70_272, predicted: kvBytesPerToken(publishedShape("deepseek-v3")), source: INSIGHTS },
    {
      ...kv,
      id: "405B",
      published: 516_096,
      predicted: kvBytesPerToken(publishedShape("llama3-405b")),
      source: INSIGHTS,
    },
    {
      ...{ ...kv, id: "G3", what: "cache saved by V2 against 67B", unit: "%", published: 93.3 },
      predicted: (1 - sixBits / kvBytesPerToken(dense)) * 100,
      inputs: "V2 at 6 bits against 67B in bf16",
    },
  ];
}

/** What the schedules of the presets add up to. */
function scheduleRows(): Row[] {
  const { training: lite } = resolveConfig("deepseek-v2-lite");
  const { training: v3 } = resolveConfig("deepseek-v3");
  const trillions = ({ steps, tokensPerStep }: TrainingConfig): number => (steps * tokensPerStep) / 1e12;
  const row = (what: string, unit: string, published: number, predicted: number): Row => ({
    ...{ id: "G20", what, unit, published, predicted },
    ...{ inputs: "presets", source: "DeepSeek-V2 report, appendix B; DeepSeek-V3 report 4.2" },
  });
  return [
    row("V3, tokens", "T tokens", 14.8, trillions(v3)),
    row("V2-Lite, after the first fall", "", 4.2e-4 * 0.316, lite.lr * lite.milestoneFactors[0]!),
    row("V2-Lite, after the second fall", "", 4.2e-4 * 0.316 ** 2, lite.lr * lite.milestoneFactors[1]!),
    row("V2-Lite, tokens", "T tokens", 5.7, trillions(lite)),
  ];
}

function serviceRows(): Row[] {
  const oii = "open-infra-index, day 6";
  const g21 = { id: "G21", unit: "$", source: oii };
  const millions = { read: 608e3, cached: 0.563, written: 168e3 };
  const wire = { tokens: 32, destinations: 9, width: 7000, bytes: 3 };
  const redundant = (copies: number): number => {
    const { memory } = planInference(publishedShape("deepseek-v3"), device("h800"), { redundantExperts: copies });
    return memory.find(({ name }) => name === "weights.experts")!.bytes;
  };
  return [
    {
      ...{ ...g21, what: "cost of a day", published: 87_072 },
      predicted: costOf({ devices: 226.75 * 8, seconds: DAY, tokens: 776e9 }, H800_HOUR_DOLLARS).cost,
      inputs: "226.75 nodes of 8, 2 $ an hour",
    },
    {
      ...{ ...g21, what: "revenue of a day", published: 562_027 },
      predicted: revenueOf([
        { millions: millions.read * (1 - millions.cached), price: 0.55 },
        { millions: millions.read * millions.cached, price: 0.14 },
        { millions: millions.written, price: 2.19 },
      ]),
      inputs: "608 B read (56.3 % cached), 168 B written; 0.55, 0.14 and 2.19 $ a million",
    },
    {
      ...{ id: "G26", what: "all-to-all of a decoded token, 400 Gb/s", unit: "ms", published: 14.76 },
      predicted: 2 * 61 * allToAllSeconds(wire, 50e9) * 1e3,
      ...{
        inputs: "32 tokens, 9 destinations, width 7,000, 1 + 2 bytes, 61 layers, 2 micro-batches",
        source: INSIGHTS,
      },
    },
    {
      ...{ id: "G26", what: "all-to-all of a decoded token, 900 GB/s", unit: "ms", published: 0.82 },
      predicted: 2 * 61 * allToAllSeconds(wire, 900e9) * 1e3,
      ...{ inputs: "as above on NVL72", source: INSIGHTS },
    },
    {
      ...{ id: "G29", what: "one redundant expert a rank", unit: "GiB", published: 2.379 },
      predicted: (redundant(1) - redundant(0)) / 2 ** 30,
      ...{ inputs: "58 layers, fp8 with block scales", source: "vLLM documentation, EPLB" },
    },
  ];
}

const NARAYANAN = { id: "G12", source: "Narayanan et al. 2021, arXiv 2104.04473" };

/** Published rates of a device as shares of its dense bf16 peak, rounded as published, and what they add up to. */
function utilisationRows(): Row[] {
  const share = (name: string, tflops: number, digits: number): number =>
    Number(((tflops * 1e14) / peakOf(device(name), "bf16")).toFixed(digits));
  const whole = { ...NARAYANAN, what: "share of the peak, to whole per cent", unit: "%" };
  return [
    { ...whole, published: 44, predicted: share("a100", 137, 0), inputs: "137 TFLOP/s, 1.7B on 32 A100" },
    { ...whole, published: 52, predicted: share("a100", 163, 0), inputs: "163 TFLOP/s, 1T on 3,072 A100" },
    {
      ...{ ...NARAYANAN, what: "all devices", unit: "PFLOP/s", published: 502, predicted: (3072 * 163) / 1e3 },
      inputs: "163 TFLOP/s on 3,072 A100",
    },
    {
      ...{ id: "G16", what: "share of the peak, to one decimal", unit: "%", published: 20.5 },
      ...{ predicted: share("h100", 203, 1), inputs: "203 TFLOP/s, 16B on 8 H100", source: "torchtitan issue 1789" },
    },
  ];
}

const DUALPIPE = "DualPipe README; Qi et al. 2023; Narayanan et al. 2021";

/** PP, micro-batches, and the percentages of 1F1B, interleaved in two, ZB1P and DualPipe. */
const BUBBLES: readonly (readonly [number, number, readonly number[]])[] = [
  [16, 120, [11.11, 5.88, 4.0, 3.74]],
  [8, 32, [17.95, 9.86, 6.8, 5.88]],
  [4, 8, [27.27, 15.79, 11.11, 7.69]],
  [16, 64, [18.99, 10.49, 7.25, 6.8]],
];

const BUBBLE_SCHEDULES: readonly (readonly [Schedule, number])[] = [
  ["1f1b", 1],
  ["interleaved", 2],
  ["zb1p", 1],
  ["dualpipe", 1],
];

function bubbleRows(): Row[] {
  return BUBBLES.flatMap(([pp, micros, percents]) =>
    BUBBLE_SCHEDULES.map(([schedule, vp], i) => ({
      id: "bubble",
      what: `${schedule} PP${pp}, ${micros} micro-batches`,
      unit: "%",
      published: percents[i]!,
      predicted: bubbleFraction({ schedule, pp, vp }, micros, { f: 1, b: 2, w: 1 }) * 100,
      inputs: "F 1, B 2, W 1, F&B 3",
      source: DUALPIPE,
    })),
  );
}
