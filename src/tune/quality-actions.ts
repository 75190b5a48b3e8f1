/** What makes a model better, and what stops it from repeating itself. */

import type { Action } from "./action.ts";

export const CHECK_DATA: Action = {
  name: "read what the model reads",
  kind: "same numbers",
  why: "Most bad models have bad data: print a batch as text and look at template, labels, cut-off documents and doubled ones.",
  source: "Karpathy, A Recipe for Training Neural Networks",
  change: () => ({}),
};

export const OVERFIT_ONE_BATCH: Action = {
  name: "learn one batch by heart",
  kind: "same numbers",
  why: "A correct setup brings the loss of a few sequences near 0; one that cannot has a fault, not a lack of tuning.",
  source: "Karpathy, A Recipe for Training Neural Networks",
  change: () => ({}),
};

export const LOWER_LR: Action = {
  name: "lower learning rate",
  kind: "other training",
  why: "The loss does not settle: a third of the peak.",
  source: "Smith 2017, learning-rate range test",
  change: ({ config: { training } }) => ({ "training.lr": roundTo2(training.lr / 3) }),
};

export const HIGHER_LR: Action = {
  name: "higher learning rate",
  kind: "other training",
  why: "The loss falls evenly and slowly: twice the peak.",
  source: "Smith 2017, learning-rate range test",
  change: ({ config: { training } }) => ({ "training.lr": roundTo2(training.lr * 2) }),
};

export const LONGER_WARMUP: Action = {
  name: "longer warm-up",
  kind: "other training",
  why: "Early steps of full size throw the router and the norms off; DeepSeek-V3 took 2,000 steps.",
  source: "DeepSeek-V3 report 4.2",
  change: ({ config: { training } }) =>
    training.warmupSteps * 2 < training.steps
      ? { "training.warmup_steps": Math.max(20, training.warmupSteps * 2) }
      : undefined,
};

export const MORE_STEPS: Action = {
  name: "train longer",
  kind: "other training",
  why: "Validation still falls with training: twice the steps.",
  source: "Hoffmann et al. 2022",
  change: ({ config: { training } }) => ({ "training.steps": training.steps * 2 }),
};

export const FEWER_STEPS: Action = {
  name: "stop earlier, or more text",
  kind: "other training",
  why: "Validation rises while training falls: the text is learned by heart. More text is better than fewer steps.",
  source: "validation loss against its lowest",
  change: ({ config: { training } }) =>
    training.steps >= 4 ? { "training.steps": Math.round(training.steps / 2) } : undefined,
};

export const BALANCE: Action = {
  name: "balance the experts",
  kind: "other training",
  why: "Some experts take far more than their share: the router's bias moves by 0.001 a step, as in DeepSeek-V3.",
  source: "DeepSeek-V3 report 2.1.2",
  change: ({ config: { model } }) =>
    model.topkMethod === "noaux_tc" && model.routerBiasSpeed < 0.001
      ? { "model.router_bias_speed": 0.001 }
      : model.seqBalanceAlpha < 0.001
        ? { "model.seq_balance_alpha": 0.001 }
        : undefined,
};

export const WARMER: Action = {
  name: "higher temperature",
  kind: "other answers",
  why: "Near 0 the likeliest word wins every time, and a loop feeds itself.",
  source: "Holtzman et al. 2020",
  change: ({ config: { generation } }) =>
    generation.temperature < 0.7 ? { "generation.temperature": 0.7 } : undefined,
};

export const WIDER_NUCLEUS: Action = {
  name: "wider top-p",
  kind: "other answers",
  why: "A nucleus that is too small leaves one word.",
  source: "Holtzman et al. 2020",
  change: ({ config: { generation } }) => (generation.topP < 0.9 ? { "generation.top_p": 0.95 } : undefined),
};

export const MILD_PENALTY: Action = {
  name: "a mild repetition penalty",
  kind: "other answers",
  why: "1.05 to 1.1; 1 is off. 1.2 and more, as some advise, hurts code and lists, whose tokens must repeat.",
  source: "Keskar et al. 2019; articles contradict each other between 1.0 and 1.2",
  change: ({ config: { generation } }) =>
    generation.repetitionPenalty < 1.05 || generation.repetitionPenalty > 1.1
      ? { "generation.repetition_penalty": 1.05 }
      : undefined,
};

export const NO_REPEATED_PHRASES: Action = {
  name: "no phrase twice",
  kind: "other answers",
  why: "Runs of 6 tokens are not written a second time; also legitimate ones are cut.",
  source: "Paulus et al. 2017",
  change: ({ config: { generation } }) =>
    generation.noRepeatNgram === 0 ? { "generation.no_repeat_ngram": 6 } : undefined,
};

function roundTo2(value: number): number {
  return Number(value.toPrecision(2));
}
