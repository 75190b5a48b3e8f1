/** Advice: the actions of a decision tree with what the planner predicts of each, the best gain for its cost first. */

import type { ResolvedConfig } from "../config/index.ts";
import { ConfigError, FathomError } from "../core/errors.ts";
import { KINDS, type Action, type Changes, type Kind, type Situation, type Symptom } from "./action.ts";
import type { RunMetrics } from "./metrics.ts";
import { predictTraining, type Prediction } from "./prediction.ts";
import { TREES, walk, type Step } from "./tree.ts";

export interface Advice {
  readonly name: string;
  readonly kind: Kind;
  readonly why: string;
  readonly source: string;
  /** Settings to change by path; none for what is done by hand. */
  readonly changes: Changes;
  readonly predicted: Prediction;
  /** Against the present configuration: bytes on the fullest device, seconds of a step and of the run. */
  readonly savedBytes: number;
  readonly stepSecAdded: number;
  readonly runSecAdded: number;
  /** Gain over cost; only its order means something. */
  readonly score: number;
}

export interface Report {
  readonly symptom: Symptom;
  readonly now: Prediction;
  readonly steps: readonly Step[];
  readonly advice: readonly Advice[];
  /** Actions that the rules of the configuration refuse here, with the rule. */
  readonly refused: readonly { readonly name: string; readonly reason: string }[];
}

export interface AdviseInput {
  readonly symptom: Symptom;
  /** The configuration with settings laid over it. */
  readonly resolve: (changes: Changes) => ResolvedConfig;
  readonly metrics?: RunMetrics;
  readonly sample?: string;
}

/** @throws ConfigError when the configuration itself cannot be planned. */
export function advise({ symptom, resolve, metrics, sample }: AdviseInput): Report {
  const config = resolve({});
  const situation: Situation = {
    config,
    now: predictTraining(config),
    ...(metrics === undefined ? {} : { metrics }),
    ...(sample === undefined ? {} : { sample }),
  };
  const { steps, actions } = walk(TREES[symptom], situation);
  const advice: Advice[] = [];
  const refused: { name: string; reason: string }[] = [];
  for (const action of actions) {
    const changes = action.change(situation);
    if (changes === undefined) continue;
    try {
      advice.push(weigh(symptom, action, changes, situation, resolve));
    } catch (error) {
      if (!(error instanceof FathomError)) throw error;
      refused.push({ name: action.name, reason: error.message });
    }
  }
  return { symptom, now: situation.now, steps, advice: advice.filter(helps(symptom)).toSorted(byScore), refused };
}

/** Share of memory or time that a kind of change counts as costing, in the order of KINDS. */
const KIND_COSTS = [0.02, 0.05, 0.1, 0.4, 4] as const;

function weigh(
  symptom: Symptom,
  action: Action,
  changes: Changes,
  { now }: Situation,
  resolve: AdviseInput["resolve"],
): Advice {
  const predicted = Object.keys(changes).length === 0 ? now : predictTraining(resolve(changes));
  const savedBytes = now.memoryBytes - predicted.memoryBytes;
  const stepSecAdded = predicted.stepSec - now.stepSec;
  const { name, kind, why, source } = action;
  const slower = Math.max(0, stepSecAdded / now.stepSec);
  const larger = Math.max(0, -savedBytes / now.limitBytes);
  const gain = symptom === "oom" ? savedBytes / now.memoryBytes : symptom === "slow" ? -stepSecAdded / now.stepSec : 1;
  const cost = KIND_COSTS[KINDS.indexOf(kind)]! + (symptom === "oom" ? slower : larger);
  return {
    ...{ name, kind, why, source, changes, predicted, savedBytes, stepSecAdded },
    runSecAdded: predicted.runSec - now.runSec,
    score: gain / cost,
  };
}

/** What saves nothing is no advice against a lack of memory, what is not faster none against slowness. */
function helps(symptom: Symptom): (advice: Advice) => boolean {
  return ({ savedBytes, stepSecAdded, changes, predicted }) => {
    if (symptom === "oom") return savedBytes > 0;
    if (symptom !== "slow" || Object.keys(changes).length === 0) return true;
    return stepSecAdded < 0 && predicted.memoryBytes <= predicted.limitBytes;
  };
}

function byScore(a: Advice, b: Advice): number {
  return b.score - a.score;
}

/** The advice with this number (from 1), to be applied alone. @throws ConfigError when there is none, or nothing to set. */
export function chosenAdvice({ advice }: Report, number: number): Advice {
  const chosen = advice[number - 1];
  if (chosen === undefined) {
    throw new ConfigError("--apply", `must be from 1 to ${advice.length}`, number, "see the list without --apply");
  }
  if (Object.keys(chosen.changes).length > 0) return chosen;
  throw new ConfigError(
    "--apply",
    "must be advice with settings to change",
    `${number}, ${chosen.name}`,
    "do it by hand",
  );
}
