/** The decision trees, one for each symptom. They can be run, printed and argued with. */

import type { Action, Node, Situation, Symptom } from "./action.ts";
import {
  BF16_MOMENTS,
  BF16_STATES,
  FULL_RECOMPUTE,
  LORA,
  MORE_EXPERT_PARALLEL,
  MORE_PIPELINE,
  MORE_ZERO,
  MOST_LAYERS_RECOMPUTE,
  NARROWER_MODEL,
  SELECTIVE_RECOMPUTE,
  SEQUENCE_PARALLEL,
  SHORTER_SEQUENCES,
  SMALLER_MICRO_BATCH,
} from "./memory-actions.ts";
import { repeatedShare, type RunMetrics } from "./metrics.ts";
import {
  BALANCE,
  CHECK_DATA,
  FEWER_STEPS,
  HIGHER_LR,
  LONGER_WARMUP,
  LOWER_LR,
  MILD_PENALTY,
  MORE_STEPS,
  NO_REPEATED_PHRASES,
  OVERFIT_ONE_BATCH,
  WARMER,
  WIDER_NUCLEUS,
} from "./quality-actions.ts";
import {
  DUAL_PIPE,
  FEWER_STAGES,
  FP8_PRODUCTS,
  INTERLEAVE,
  LARGER_MICRO_BATCH,
  LESS_RECOMPUTE,
  LESS_TENSOR_PARALLEL,
  LESS_ZERO,
  PROFILE,
} from "./speed-actions.ts";

/** A run that reaches less of the prediction than this waits for something that the planner does not know. */
const EXPECTED_SHARE = 0.6;
/** A loss that is so far above its lowest has turned. */
const TURNED = 1.02;
/** An expert with more than this many times the mean load starves others. */
const OVERLOADED = 2;
/** Prose repeats about a tenth of its four-word phrases. */
const LOOPING = 0.3;

const isAway = ({ config: { parallel } }: Situation): boolean =>
  parallel.tp * parallel.pp * parallel.cp * parallel.dp > 1;

function validationRises({ lastValLoss, bestValLoss }: RunMetrics): boolean | undefined {
  if (lastValLoss === undefined || bestValLoss === undefined) return undefined;
  return lastValLoss > TURNED * bestValLoss;
}

const OOM: readonly Node[] = [
  {
    ask: "do weights, gradients and moments leave room for a pass?",
    holds: ({ now }) => now.stateBytes < now.limitBytes,
    yes: [SMALLER_MICRO_BATCH, SELECTIVE_RECOMPUTE, MOST_LAYERS_RECOMPUTE, FULL_RECOMPUTE],
  },
  {
    ask: "is there more than one device?",
    holds: isAway,
    yes: [MORE_ZERO, MORE_EXPERT_PARALLEL, MORE_PIPELINE, SEQUENCE_PARALLEL],
  },
  {
    ask: ({ config }) => `is the model computed in float32? (precision_recipe is ${config.parallel.precisionRecipe})`,
    holds: ({ config }) => config.parallel.precisionRecipe === "fp32",
    yes: [BF16_STATES],
    no: [BF16_MOMENTS],
  },
  SHORTER_SEQUENCES,
  LORA,
  NARROWER_MODEL,
];

const SLOW: readonly Node[] = [
  {
    ask: "does the run reach less than 60 % of the predicted speed?",
    holds: ({ metrics, now }) =>
      metrics?.tokensPerSec === undefined ? undefined : metrics.tokensPerSec < EXPECTED_SHARE * now.tokensPerSec,
    yes: [PROFILE],
  },
  {
    ask: "is memory left?",
    holds: ({ now }) => now.memoryBytes < now.limitBytes,
    yes: [LARGER_MICRO_BATCH, LESS_RECOMPUTE, LESS_ZERO, FEWER_STAGES],
    no: [LESS_ZERO],
  },
  {
    ask: "is there more than one device?",
    holds: isAway,
    yes: [LESS_TENSOR_PARALLEL, INTERLEAVE, DUAL_PIPE],
  },
  FP8_PRODUCTS,
];

const QUALITY: readonly Node[] = [
  {
    ask: "are there metrics of a run?",
    holds: ({ metrics }) => metrics !== undefined,
    yes: [
      {
        ask: "did the loss rise over the run?",
        holds: ({ metrics }) => metrics!.lastLoss >= metrics!.firstLoss,
        yes: [LOWER_LR, LONGER_WARMUP, CHECK_DATA],
        no: [
          {
            ask: "does validation rise while training falls?",
            holds: ({ metrics }) => validationRises(metrics!),
            yes: [FEWER_STEPS, CHECK_DATA],
            no: [MORE_STEPS, HIGHER_LR],
            unmeasured: [MORE_STEPS, HIGHER_LR],
          },
        ],
      },
      {
        ask: "does an expert take more than twice the mean load?",
        holds: ({ metrics }) => (metrics!.maxLoad === undefined ? undefined : metrics!.maxLoad > OVERLOADED),
        yes: [BALANCE],
      },
    ],
    no: [CHECK_DATA, OVERFIT_ONE_BATCH, LOWER_LR, MORE_STEPS],
  },
];

const AGAINST_LOOPS: readonly Node[] = [WARMER, WIDER_NUCLEUS, MILD_PENALTY, NO_REPEATED_PHRASES];

const REPETITION: readonly Node[] = [
  {
    ask: "is there a sample of its text?",
    holds: ({ sample }) => sample !== undefined,
    yes: [
      {
        ask: "is the sample a loop (more than 30 % of its four-word phrases stood there before)?",
        holds: ({ sample }) => repeatedShare(sample!) > LOOPING,
        yes: AGAINST_LOOPS,
        no: [MILD_PENALTY],
      },
    ],
    no: AGAINST_LOOPS,
  },
];

export const TREES: Readonly<Record<Symptom, readonly Node[]>> = {
  oom: OOM,
  slow: SLOW,
  quality: QUALITY,
  repetition: REPETITION,
};

/** A question with its answer. */
export interface Step {
  readonly ask: string;
  readonly answer: boolean;
}

/** The actions that a situation leads to, each once, with the questions that were answered on the way. */
export function walk(nodes: readonly Node[], situation: Situation): { steps: Step[]; actions: Action[] } {
  const steps: Step[] = [];
  const actions = new Set<Action>();
  const visit = (node: Node): void => {
    if (!("ask" in node)) {
      actions.add(node);
      return;
    }
    const answer = node.holds(situation);
    if (answer === undefined) {
      node.unmeasured?.forEach(visit);
      return;
    }
    steps.push({ ask: typeof node.ask === "string" ? node.ask : node.ask(situation), answer });
    (answer ? node.yes : (node.no ?? [])).forEach(visit);
  };
  nodes.forEach(visit);
  return { steps, actions: [...actions] };
}
