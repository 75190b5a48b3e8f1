/**
 * Published training runs with every input that a prediction needs. A run that leaves one out is not predicted: it
 * lists what is missing, and only its implied efficiency is printed. `fit` rows were chosen before anything was fitted.
 */

import type { LayoutInput } from "../layout.ts";

/** What was measured, per device for rates. */
export type Measured =
  | { readonly metric: "step"; readonly seconds: number }
  | { readonly metric: "tflops"; readonly tflops: number }
  | { readonly metric: "tokens"; readonly perSec: number; readonly tflops?: number };

export interface PublishedRun {
  /** Number of the run in the table, and what tells it from its neighbours. */
  readonly id: string;
  readonly model: string;
  readonly device: string;
  readonly count: number;
  readonly engine: string;
  /** Name of a precision recipe; undefined when it is not published. */
  readonly precision: string;
  readonly family: "dense" | "moe";
  /** Whether MTP layers were trained and counted. */
  readonly mtp: boolean;
  readonly seqLen: number;
  /** Undefined when something is missing. */
  readonly layout?: LayoutInput;
  readonly missing: readonly string[];
  readonly measured: Measured;
  readonly role: "fit" | "predict" | "calibration";
  readonly source: string;
  /** Share of communication that the engine's design hides; half unless it is known. */
  readonly hiddenShare?: number;
  /** What was taken as given without being published with the run. */
  readonly assumed?: string;
}

type Common = Pick<PublishedRun, "device" | "engine" | "precision" | "family" | "mtp" | "seqLen" | "source">;

const K22: Common & { missing: readonly string[] } = {
  device: "a100",
  engine: "megatron-2022",
  precision: "bf16",
  family: "dense",
  mtp: false,
  seqLen: 2048,
  missing: [],
  source: "Korthikanti et al. 2022, tables 3 and 5",
};

/**
 * Full recomputation without sequence parallelism against selective recomputation with it. The smallest and the largest
 * model are fitted: between them the ratio of products to traffic, which tells the two coefficients apart, is widest.
 */
function k22Pair(
  model: string,
  count: number,
  layout: Omit<LayoutInput, "seqLen">,
  [full, present]: readonly [number, number],
  presentRole: "fit" | "predict" = "predict",
): PublishedRun[] {
  const run = (id: string, seconds: number, role: "fit" | "predict", settings: Partial<LayoutInput>): PublishedRun => ({
    ...K22,
    id: `G11 ${model} ${id}`,
    model,
    count,
    layout: { ...layout, seqLen: 2048, zero: 0, ...settings },
    measured: { metric: "step", seconds },
    role,
  });
  return [
    run("full recompute", full, "predict", { recompute: "full", sequenceParallel: false }),
    run("selective, SP", present, presentRole, { recompute: "selective", sequenceParallel: true }),
  ];
}

const LLAMA3: Common & { missing: readonly string[]; assumed: string } = {
  device: "h100",
  engine: "meta-llama3",
  precision: "bf16",
  family: "dense",
  mtp: false,
  seqLen: 8192,
  missing: [],
  source: "Llama 3 report, table 4, by glennklockwood.com",
  assumed:
    "four virtual stages of two layers (126 = 128 − 2: the first and the last have one less); gradients reduced once a step, as PyTorch's pipelines do",
};

function llama3(
  tflops: number,
  role: "fit" | "predict",
  { count, dp, cp, batch, seqLen }: Record<"count" | "dp" | "cp" | "batch" | "seqLen", number>,
): PublishedRun {
  return {
    ...LLAMA3,
    id: `G10 ${count} GPUs${cp > 1 ? ` CP${cp}` : ""}`,
    model: "llama3-405b",
    count,
    seqLen,
    layout: { tp: 8, pp: 16, vp: 4, cp, dp, zero: 1, globalBatchSize: batch * dp, seqLen },
    measured: { metric: "tflops", tflops },
    role,
  };
}

const TITAN = "torchtitan benchmarks/llama3_h100_202412_torchtitan.md";

/** FSDP over all devices: local batch 2, selective recomputation. */
function torchtitan(variant: string, precision: string, rates: readonly [number, number]): PublishedRun[] {
  return [8, 128].map((count, i) => ({
    id: `G13 8B ${variant}, ${count} GPUs`,
    model: "llama3-8b",
    device: "h100-96gb",
    count,
    engine: `torchtitan ${variant}`,
    precision,
    family: "dense",
    mtp: false,
    seqLen: 8192,
    layout: {
      ...{ zero: 3, recompute: "selective", microBatchSize: 2 },
      ...{ globalBatchSize: 2 * count, seqLen: 8192 },
    },
    missing: [],
    measured: { metric: "tokens", perSec: rates[i]! },
    role: i === 0 ? "fit" : "predict",
    source: TITAN,
    hiddenShare: 1,
    assumed: "sequences of 8,192; FSDP2 gathers the next layer while one computes, so that all can hide",
  }));
}

/** A run that is not predicted. */
function incomplete(
  id: string,
  [model, count, device, engine, precision]: readonly [string, number, string, string, string],
  measured: Measured,
  missing: readonly string[],
  options: { seqLen?: number; mtp?: boolean; source: string },
): PublishedRun {
  return {
    ...{ id, model, count, device, engine, precision, measured, missing },
    family: /deepseek/.test(model) ? "moe" : "dense",
    mtp: options.mtp ?? false,
    seqLen: options.seqLen ?? 4096,
    role: "calibration",
    source: options.source,
  };
}

const tokens = (perSec: number, tflops?: number): Measured => ({
  metric: "tokens",
  perSec,
  ...(tflops === undefined ? {} : { tflops }),
});

const AUTOMODEL = { source: "NeMo Automodel performance summary" };
const BRIDGE = { source: "Megatron-Bridge performance summary 26.08", mtp: true };
const BRIDGE_25 = { source: "Megatron-Bridge performance summary 25.11" };
const NO_RECOMPUTE = ["recomputation"];
const NO_LAYOUT = ["global batch", "recomputation"];

export const PUBLISHED_RUNS: readonly PublishedRun[] = [
  ...k22Pair("gpt-22b", 8, { tp: 8, microBatchSize: 4, globalBatchSize: 4 }, [1.42, 1.1], "fit"),
  ...k22Pair("gpt-175b", 64, { tp: 8, pp: 8, vp: 3, globalBatchSize: 64 }, [18.13, 13.75]),
  ...k22Pair("gpt-530b", 280, { tp: 8, pp: 35, vp: 3, globalBatchSize: 280 }, [49.05, 37.83]),
  ...k22Pair("gpt-1t", 512, { tp: 8, pp: 64, globalBatchSize: 512 }, [94.42, 71.49], "fit"),
  llama3(430, "fit", { count: 8192, dp: 64, cp: 1, batch: 32, seqLen: 8192 }),
  llama3(400, "predict", { count: 16_384, dp: 128, cp: 1, batch: 16, seqLen: 8192 }),
  llama3(380, "predict", { count: 16_384, dp: 8, cp: 16, batch: 16, seqLen: 131_072 }),
  ...torchtitan("eager", "bf16", [5762, 5605]),
  ...torchtitan("compiled", "bf16", [6667, 6514]),
  ...torchtitan("compiled fp8", "fp8-bf16-states", [8532, 8380]),
  incomplete(
    "G1",
    ["deepseek-v3", 2048, "h800", "deepseek", "fp8"],
    tokens(1543),
    ["micro-batch", "overlap of DualPipe"],
    {
      source: "DeepSeek-V3 report, table 1",
    },
  ),
  incomplete("G2", ["deepseek-v3", 2048, "h800", "deepseek", "fp8"], tokens(1541.7, 385), ["micro-batch"], {
    source: "Insights into DeepSeek-V3, arXiv 2505.09343",
  }),
  incomplete("G4", ["deepseek-v3", 1024, "h100", "automodel", "bf16"], tokens(865, 216), NO_RECOMPUTE, AUTOMODEL),
  incomplete("G5", ["deepseek-v3", 256, "h100", "automodel", "bf16"], tokens(1002, 250), NO_RECOMPUTE, AUTOMODEL),
  incomplete("G6", ["llama3-70b", 64, "h100", "automodel", "bf16"], tokens(866.8, 389), NO_LAYOUT, {
    ...AUTOMODEL,
    seqLen: 8192,
  }),
  incomplete(
    "G7 GB300",
    ["deepseek-v3", 256, "gb300", "megatron-bridge", "fp8"],
    tokens(6288, 1635),
    NO_LAYOUT,
    BRIDGE,
  ),
  incomplete(
    "G7 GB200",
    ["deepseek-v3", 256, "gb200", "megatron-bridge", "fp8"],
    tokens(4912, 1276),
    NO_LAYOUT,
    BRIDGE,
  ),
  incomplete(
    "G7 GB300 bf16",
    ["deepseek-v3", 256, "gb300", "megatron-bridge", "bf16"],
    tokens(3848, 961),
    NO_RECOMPUTE,
    BRIDGE_25,
  ),
  incomplete(
    "G7 GB300 fp8",
    ["deepseek-v3", 256, "gb300", "megatron-bridge", "fp8"],
    tokens(4357, 1088),
    NO_RECOMPUTE,
    BRIDGE_25,
  ),
  incomplete(
    "G7 GB200 bf16",
    ["deepseek-v3", 256, "gb200", "megatron-bridge", "bf16"],
    tokens(3139, 782),
    NO_RECOMPUTE,
    BRIDGE_25,
  ),
  incomplete(
    "G7 GB200 fp8",
    ["deepseek-v3", 256, "gb200", "megatron-bridge", "fp8"],
    tokens(4018, 1003),
    NO_RECOMPUTE,
    BRIDGE_25,
  ),
  incomplete("G7 B200", ["deepseek-v3", 256, "b200", "megatron-bridge", "bf16"], tokens(2139, 557), NO_RECOMPUTE, {
    ...BRIDGE_25,
    mtp: true,
  }),
  incomplete("G9", ["llama3-405b", 1024, "h100", "megatron-bridge", "fp8"], tokens(326, 822), NO_LAYOUT, {
    source: BRIDGE.source,
    seqLen: 8192,
  }),
  incomplete(
    "G14 70B",
    ["llama3-70b", 256, "h100-96gb", "torchtitan", "bf16"],
    tokens(829),
    ["precision", "micro-batch"],
    {
      source: TITAN,
      seqLen: 8192,
    },
  ),
  incomplete(
    "G14 405B",
    ["llama3-405b", 512, "h100-96gb", "torchtitan", "bf16"],
    tokens(128),
    ["precision", "virtual stages"],
    {
      source: TITAN,
      seqLen: 8192,
    },
  ),
  incomplete("G15", ["deepseek-v3", 256, "b200", "torchtitan", "fp8"], tokens(918), ["layout", "sequence", "batch"], {
    source: "PyTorch blog, DeepSeek-V3 pre-training on B200",
  }),
];
