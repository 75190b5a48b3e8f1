/** Advice: the actions of a decision tree with what the planner predicts of each, the best gain for its cost first. */

import type { ResolvedConfig } from "../config/index.ts";
import { ConfigError, FathomError } from "../core/errors.ts";
import { KINDS, type Action, type Changes, type Kind, type Situation, type Symptom } from "./action.ts";
import type { RunMetrics } from "./metrics.ts";
import type { Quantity } from "../planner/index.ts";
import { explainPrediction, predictedJob, predictTraining, type PredictedJob, type Prediction } from "./prediction.ts";
import { TREES, walk, type Step } from "./tree.ts";

export interface Advice {
  readonly name: string;
  readonly kind: Kind;
  readonly why: string;
  readonly source: string;
  /** Settings to change by path; none for what is done by hand. */
  readonly changes: Changes;
  readonly predicted: Prediction;
  /** Bytes over what may be used of the fullest device after the change; 0 where it fits. */
  readonly overBytes: number;
  /** Against the present configuration: bytes on the fullest device, seconds of a step and of the run. */
  readonly savedBytes: number;
  readonly stepSecAdded: number;
  readonly runSecAdded: number;
  /** Gain over cost; only its order means something. */
  readonly score: number;
}

export interface Report {
  readonly symptom: Symptom;
  /** What the predictions are of. */
  readonly job: PredictedJob;
  readonly now: Prediction;
  /** What the predictions themselves say to the symptom. */
  readonly remark: string | null;
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
export function advise({ symptom, resolve: resolveGiven, metrics, sample }: AdviseInput): Report {
  const isOpen = leavesMicroBatchOpen(resolveGiven({}));
  const resolve = settled(resolveGiven);
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
  const { now } = situation;
  const job = predictedJob(config, isOpen);
  const ranked = advice.filter(helps(symptom)).toSorted(symptom === "oom" ? byFitThenScore : byScore);
  return { symptom, job, now, remark: remarkOn(symptom, now), steps, advice: ranked, refused };
}

/** What the advisor predicts of every change, by rows of the training plan. */
const EFFECTS = ["memory.total", "time.step"] as const;
const PRESENT = [...EFFECTS, "memory.limit", "run.rate"] as const;

/**
 * Where the predicted effect of an advice comes from: its number less that of the present run; of the present run alone
 * for number 0.
 *
 * @param number - place of the advice in the report, from 1, or 0.
 * @throws ConfigError when there is no such advice.
 */
export function explainAdvice(input: AdviseInput, number: number): Quantity[] {
  const resolve = settled(input.resolve);
  const present = (name: string): Quantity => explainPrediction(resolve({}), name);
  if (number === 0) return PRESENT.map(present);
  const chosen = adviceAt(advise(input), "--why", number);
  const config = resolve(chosen.changes);
  return EFFECTS.map((name) => differenceOf(explainPrediction(config, name), present(name)));
}

/** Names are told apart, so that both are opened. */
function differenceOf(after: Quantity, before: Quantity): Quantity {
  const { name, unit, meaning } = after;
  return {
    ...{ name: `change of ${name}`, unit, value: after.value - before.value },
    ...{ meaning: `${meaning}: what the advice adds`, formula: "with the advice - now" },
    inputs: [
      { ...after, name: `${name} with the advice` },
      { ...before, name: `${name} now` },
    ],
  };
}

/** The settings with micro-batches of one sequence where they are open. */
function settled(resolve: AdviseInput["resolve"]): AdviseInput["resolve"] {
  if (!leavesMicroBatchOpen(resolve({}))) return resolve;
  return (changes) => resolve({ ...ONE_SEQUENCE, ...changes });
}

const ONE_SEQUENCE = { "training.micro_batch_size": 1 };

/** Left alone it is the whole share of a replica, thousands of sequences in a released model: no one trains so. */
function leavesMicroBatchOpen({ why }: ResolvedConfig): boolean {
  return ["micro_batch_size", "grad_accum_steps"].every((name) => why[`training.${name}`]!.startsWith("default"));
}

function remarkOn(symptom: Symptom, now: Prediction): string | null {
  if (symptom === "slow" && overBytes(now) > 0) return "by the prediction it does not fit: begin with --oom";
  if (symptom !== "oom" || overBytes(now) > 0) return null;
  const causes = "other processes on the device, fragmentation, or longer sequences than training.seq_len";
  return `by the prediction it fits, so the cause is elsewhere: ${causes}`;
}

function overBytes({ memoryBytes, limitBytes }: Prediction): number {
  return Math.max(0, memoryBytes - limitBytes);
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
    overBytes: overBytes(predicted),
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

/** One change that is enough stands before many that are not. */
function byFitThenScore(a: Advice, b: Advice): number {
  return Number(a.overBytes > 0) - Number(b.overBytes > 0) || byScore(a, b);
}

function byScore(a: Advice, b: Advice): number {
  return b.score - a.score;
}

/** The advice with this number (from 1), to be applied alone. @throws ConfigError when there is none, or nothing to set. */
export function chosenAdvice(report: Report, number: number): Advice {
  const chosen = adviceAt(report, "--apply", number);
  if (Object.keys(chosen.changes).length > 0) return chosen;
  throw new ConfigError(
    "--apply",
    "must be advice with settings to change",
    `${number}, ${chosen.name}`,
    "do it by hand",
  );
}

/** @throws ConfigError when there is no advice of this number. */
function adviceAt({ advice }: Report, option: string, number: number): Advice {
  const chosen = advice[number - 1];
  if (chosen !== undefined) return chosen;
  if (advice.length === 0) {
    const cure = "--why 0 explains the prediction of the run as it is";
    throw new ConfigError(option, "must name advice, of which there is none here", number, cure);
  }
  throw new ConfigError(option, `must be from 1 to ${advice.length}`, number, `see the list without ${option}`);
}
