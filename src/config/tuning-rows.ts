/** Parameters of the search for better settings, and of what a run is watched for. */

import type { Rows } from "./row.ts";

const OPTUNA = "Optuna (arXiv 1907.10902)";

export const TUNING_ROWS = {
  trials: {
    layer: "training control",
    type: "integer",
    unit: "runs",
    min: 1,
    default: 20,
    why: "enough for a handful of settings",
    meaning: "Runs that a search may take.",
    moves: { flops: "+ linear", quality: "+" },
    realIn: "field",
    source: OPTUNA,
    aliases: { other: ["n_trials"] },
  },
  sampler: {
    layer: "training control",
    type: "choice",
    choices: ["tpe", "gp", "random", "grid"],
    default: "tpe",
    why: "good with few runs and mixed kinds of settings",
    meaning: "How the next settings are proposed: by density, by a Gaussian process, at random, or in turn.",
    moves: { quality: "+ for the same number of runs" },
    realIn: "field",
    source: OPTUNA,
  },
  pruner: {
    layer: "training control",
    type: "choice",
    choices: ["none", "asha"],
    default: "asha",
    why: "bad runs show early",
    meaning: "Whether runs that fall behind others are ended early.",
    moves: { flops: "−" },
    realIn: "field",
    source: "arXiv 1810.05934",
  },
  mfuAlarm: {
    layer: "training control",
    type: "number",
    unit: "share of the peak",
    min: 0,
    max: 1,
    default: 0.2,
    why: "half of what a tuned cluster reaches",
    meaning: "Share of the device's peak below which a run is called slow.",
    moves: {},
    realIn: "article",
    source: "Megatron-LM throughput reports",
    truth: "1.2 TFLOP/s, the articles' threshold, is 0.1 % of an H100; a rate says nothing without its peak.",
  },
} as const satisfies Rows;
