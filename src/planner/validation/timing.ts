/**
 * Step times of published runs. A group is one engine, device, precision and family; its two coefficients are fitted
 * on the rows marked `fit` and the others predicted. Leave-one-out refits on all rows but one.
 */

import { invariant } from "../../core/errors.ts";
import { device } from "../devices.ts";
import { ASSUMED } from "../assumptions.ts";
import type { Efficiency } from "../efficiency.ts";
import { peakOf } from "../hardware.ts";
import { completeLayout } from "../layout.ts";
import { precisionRecipe } from "../precision.ts";
import type { ModelShape } from "../shape.ts";
import { createTrainingEvaluator, type TrainingEvaluator } from "../training.ts";
import { flopsPerToken } from "../work.ts";
import { publishedShape } from "./models.ts";
import { PUBLISHED_RUNS, type PublishedRun } from "./published-runs.ts";

/** The two coefficients of a group. */
export type Coefficients = Required<Pick<Efficiency, "computeShare" | "memoryShare">>;

export interface TimedRow {
  readonly run: PublishedRun;
  readonly published: number;
  readonly predicted: number;
  /** Signed, of the published value. */
  readonly error: number;
  /** Error when the coefficients come from all other rows of the group; undefined when there are none. */
  readonly leaveOneOut: number | undefined;
}

export interface TimedGroup {
  readonly name: string;
  readonly coefficients: Coefficients;
  readonly rows: readonly TimedRow[];
}

/** A run that is not predicted, with what it would imply. */
export interface ImpliedRow {
  readonly run: PublishedRun;
  /** Model FLOPs, causal, over the dense bf16 peak. */
  readonly mfu: number;
}

const UNTRIED_HIDDEN_SHARE = 0.5;
/** Shares of the memory's rate that are tried; one row cannot tell them apart from its products and takes the usual one. */
const MEMORY_SHARES = Array.from({ length: 46 }, (_, i) => (i + 5) / 50);
/** Halvings of [0.05, 1] on a logarithmic scale: a tenth of a per cent. */
const FIT_STEPS = 12;

/** Every group with at least two complete rows. */
export function timeGroups(runs: readonly PublishedRun[] = PUBLISHED_RUNS): TimedGroup[] {
  const groups = new Map<string, PublishedRun[]>();
  for (const run of runs.filter(({ missing }) => missing.length === 0)) {
    const name = [run.engine, run.device, run.precision, run.family].join(" / ");
    groups.set(name, [...(groups.get(name) ?? []), run]);
  }
  return [...groups].filter(([, members]) => members.length > 1).map(([name, members]) => timeGroup(name, members));
}

function timeGroup(name: string, runs: readonly PublishedRun[]): TimedGroup {
  const coefficients = fitCoefficients(runs.filter(({ role }) => role === "fit"));
  const rows = runs.map((run) => {
    const others = runs.filter((other) => other !== run);
    return {
      run,
      published: publishedValue(run),
      predicted: predict(run, coefficients),
      error: errorOf(run, coefficients),
      leaveOneOut: others.length === 0 ? undefined : errorOf(run, fitCoefficients(others)),
    };
  });
  return { name, coefficients, rows };
}

function errorOf(run: PublishedRun, coefficients: Coefficients): number {
  return predict(run, coefficients) / publishedValue(run) - 1;
}

function publishedValue({ measured }: PublishedRun): number {
  if (measured.metric === "step") return measured.seconds;
  return measured.metric === "tflops" ? measured.tflops : measured.perSec;
}

/** The measured quantity as the planner computes it. */
function predict(run: PublishedRun, coefficients: Coefficients): number {
  const stepSec = stepSeconds(run, coefficients);
  if (run.measured.metric === "step") return stepSec;
  const perSec = (run.layout!.globalBatchSize * run.seqLen) / (stepSec * run.count);
  return run.measured.metric === "tokens" ? perSec : (perSec * trainingFlops(run)) / 1e12;
}

const shapes = new Map<string, ModelShape>();

function shapeOf({ model, mtp }: PublishedRun): ModelShape {
  const key = `${model} ${mtp}`;
  const shape = shapes.get(key) ?? publishedShape(model, mtp);
  shapes.set(key, shape);
  return shape;
}

/** Fits that leave one row out visit the same coefficients again and again. */
const steps = new Map<string, number>();

function stepSeconds(run: PublishedRun, coefficients: Coefficients): number {
  const key = `${run.id} ${coefficients.computeShare} ${coefficients.memoryShare}`;
  const seconds = steps.get(key) ?? evaluateStep(run, coefficients);
  steps.set(key, seconds);
  return seconds;
}

function evaluateStep(run: PublishedRun, coefficients: Coefficients): number {
  invariant(run.layout !== undefined, `${run.id} has a layout`);
  const evaluator = evaluatorOf(run).withEfficiency(efficiencyOf(run, coefficients));
  return evaluator.evaluate(completeLayout(run.layout, run.count)).stepSec;
}

function efficiencyOf({ hiddenShare = UNTRIED_HIDDEN_SHARE }: PublishedRun, coefficients: Coefficients): Efficiency {
  return { ...coefficients, hiddenShare, basis: "fitted on published runs", calibrated: true };
}

const evaluators = new Map<string, TrainingEvaluator>();

function evaluatorOf(run: PublishedRun): TrainingEvaluator {
  const known = evaluators.get(run.id);
  if (known !== undefined) return known;
  const evaluator = createTrainingEvaluator({
    shape: shapeOf(run),
    recipe: precisionRecipe(run.precision),
    cluster: { device: device(run.device), count: run.count },
    efficiency: efficiencyOf(run, { computeShare: 1, memoryShare: ASSUMED.memoryShare }),
    margin: 1,
  });
  evaluators.set(run.id, evaluator);
  return evaluator;
}

function trainingFlops(run: PublishedRun): number {
  return flopsPerToken(shapeOf(run), { seqLen: run.seqLen, mtp: run.mtp }).training;
}

/** Least squares of the logarithms. */
function fitCoefficients(runs: readonly PublishedRun[]): Coefficients {
  invariant(runs.length > 0, "a group has a row to fit");
  const shares = runs.length === 1 ? [ASSUMED.memoryShare] : MEMORY_SHARES;
  const fits = shares.map((memoryShare) => {
    const coefficients = { computeShare: fitComputeShare(runs, memoryShare), memoryShare };
    const square = runs.reduce((sum, run) => sum + logError(run, coefficients) ** 2, 0);
    return { coefficients, square };
  });
  return fits.reduce((best, fit) => (fit.square < best.square ? fit : best)).coefficients;
}

/** How much longer than published the planner's step is, as a logarithm. */
function logError(run: PublishedRun, coefficients: Coefficients): number {
  const log = Math.log(predict(run, coefficients) / publishedValue(run));
  return run.measured.metric === "step" ? log : -log;
}

/** The share at which the mean of the errors is nothing; steps grow shorter as it grows, so a false position finds it. */
function fitComputeShare(runs: readonly PublishedRun[], memoryShare: number): number {
  const mean = (computeShare: number): number =>
    runs.reduce((sum, run) => sum + logError(run, { computeShare, memoryShare }), 0) / runs.length;
  let [low, high] = [0.05, 1];
  for (let i = 0; i < FIT_STEPS; i++) {
    const middle = Math.sqrt(low * high);
    if (mean(middle) > 0) low = middle;
    else high = middle;
  }
  return Math.sqrt(low * high);
}

/** What the incomplete runs imply: calibration, not a claim. */
export function impliedRows(runs: readonly PublishedRun[] = PUBLISHED_RUNS): ImpliedRow[] {
  return runs
    .filter(({ missing }) => missing.length > 0)
    .map((run) => {
      const { measured } = run;
      invariant(measured.metric === "tokens", `${run.id} has a rate`);
      return { run, mfu: (measured.perSec * trainingFlops(run)) / peakOf(device(run.device), "bf16") };
    });
}
