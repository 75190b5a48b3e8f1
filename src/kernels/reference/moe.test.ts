import { expect, test } from "vitest";
import { blank, f64, i32, runKernel } from "../../../test/helpers/kernel-calls.ts";
import { createReferenceBackend } from "./backend.ts";

const backend = createReferenceBackend();

interface Routing {
  readonly topk: number;
  readonly groups?: number;
  readonly limitedGroups?: number;
  readonly groupScore?: number;
  readonly scoreFunc?: number;
  readonly normalize?: number;
  readonly routeScale?: number;
  readonly bias?: readonly number[];
}

/** Routes one token whose scores come from `logits`. */
function routeOne(
  logits: readonly number[],
  { bias, ...routing }: Routing,
): Record<"scores" | "idx" | "weights", number[]> {
  const experts = logits.length;
  const { scores, idx, weights } = runKernel(
    backend,
    "route",
    {
      logits: f64(logits),
      bias: bias && f64(bias),
      scores: blank("f64", experts),
      idx: blank("i32", routing.topk),
      weights: blank("f64", routing.topk),
    },
    {
      n: 1,
      experts,
      groups: 1,
      limitedGroups: 1,
      groupScore: 0,
      scoreFunc: 0,
      normalize: 0,
      routeScale: 1,
      ...routing,
    },
  );
  return { scores: [...scores], idx: [...idx], weights: [...weights] };
}

const logit = (score: number): number => Math.log(score / (1 - score));

test("softmax scores sum to 1 and the weights are those of the chosen, times the scale", () => {
  const { scores, idx, weights } = routeOne([Math.log(1), Math.log(3), Math.log(4)], { topk: 2, routeScale: 2 });
  expect(idx).toEqual([2, 1]);
  expect(scores[0]).toBeCloseTo(1 / 8, 14);
  expect(weights[0]).toBeCloseTo(1, 14);
  expect(weights[1]).toBeCloseTo(3 / 4, 14);
});

test("ties go to the lower index, in the choice and in its order", () => {
  expect(routeOne([1, 5, 1, 1, 5], { topk: 3 }).idx).toEqual([1, 4, 0]);
});

test("the bias moves the choice and never the weights", () => {
  const scores = [0.5, 0.25, 0.75];
  const { idx, weights } = routeOne(scores.map(logit), { topk: 2, scoreFunc: 1, normalize: 1, bias: [0, 1, 0] });
  expect(idx).toEqual([1, 2]);
  expect(weights[0]).toBeCloseTo(0.25, 14);
  expect(weights[1]).toBeCloseTo(0.75, 14);
});

test("groups are limited by their best expert (V2) or by the sum of their two best (V3)", () => {
  const logits = [0.6, 0.05, 0.3, 0.5, 0.4, 0.35].map(logit);
  const grouped = { topk: 2, scoreFunc: 1, groups: 3, limitedGroups: 1 };
  expect(routeOne(logits, { ...grouped, groupScore: 1 }).idx).toEqual([0, 1]);
  expect(routeOne(logits, { ...grouped, groupScore: 2 }).idx).toEqual([3, 2]);
  expect(routeOne(logits, { ...grouped, groupScore: 2, limitedGroups: 2 }).idx).toEqual([3, 4]);
});

test("moePlan sorts by expert, stable in token order, and slotRow inverts rowSlot", () => {
  const plan = runKernel(
    backend,
    "moePlan",
    {
      idx: i32([3, 0, 0, 3, 1, 0]),
      offsets: blank("i32", 5),
      rowToken: blank("i32", 6),
      rowSlot: blank("i32", 6),
      slotRow: blank("i32", 6),
    },
    { n: 3, topk: 2, experts: 4 },
  );
  expect([...plan.offsets]).toEqual([0, 3, 4, 4, 6]);
  expect([...plan.rowToken]).toEqual([0, 1, 2, 2, 0, 1]);
  expect([...plan.rowSlot]).toEqual([1, 2, 5, 4, 0, 3]);
  expect([...plan.slotRow]).toEqual([4, 0, 1, 5, 3, 2]);
});

test("combine adds a token's expert rows to its base", () => {
  const { y } = runKernel(
    backend,
    "combine",
    { ys: f64([1, 2, 3, 4]), slotRow: i32([3, 0, 1, 2]), base: f64([10, 20]), y: f64([100, 100]) },
    { n: 2, topk: 2, d: 1, accumulate: 1 },
  );
  expect([...y]).toEqual([115, 125]);
});

test("the balance loss is α when experts are used and scored evenly, and grows with imbalance", () => {
  const loss = (scores: number[], idx: number[]): number =>
    runKernel(
      backend,
      "balanceLoss",
      { scores: f64(scores), idx: i32(idx), segments: i32([0, 2]), loss: blank("f64", 1), dScores: blank("f64", 4) },
      { n: 2, experts: 2, topk: 1, segments: 1, alpha: 0.1 },
    ).loss[0]!;
  expect(loss([0.5, 0.5, 0.5, 0.5], [0, 1])).toBeCloseTo(0.1, 14);
  // f = [2, 0], P = [0.75, 0.25]; scores need not sum to 1.
  expect(loss([3, 1, 0.75, 0.25], [0, 0])).toBeCloseTo(0.15, 14);
});

test("counts raise the bias of an expert below the mean and lower one above it", () => {
  const { counts } = runKernel(
    backend,
    "expertCounts",
    { idx: i32([0, 2, 0, 1]), counts: f64([1, 1, 1]) },
    { n: 4, experts: 3, accumulate: 1 },
  );
  expect([...counts]).toEqual([3, 2, 2]);
  const bias = runKernel(
    backend,
    "routerBiasInto",
    { counts: f64([3, 2, 1]), bias: f64([0, 0, 0]) },
    { experts: 3, speed: 0.5 },
  ).bias;
  expect([...bias]).toEqual([-0.5, 0, 0.5]);
});
