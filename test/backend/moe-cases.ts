/** Cases of routing: groups, biases, ties, and the balance of experts. */

import type { Rng } from "../../src/core/index.ts";
import type { KernelName } from "../../src/kernels/index.ts";
import { blank, f32, i32, runKernel, uniform } from "../helpers/kernel-calls.ts";
import { indices, linear, maxAbs, reference, type Case, type Cases } from "./case.ts";
import { bound } from "./tolerances.ts";

interface Routing {
  readonly experts: number;
  readonly topk: number;
  readonly groups: number;
  readonly limitedGroups: number;
  readonly groupScore: number;
}

const ROUTINGS: readonly Routing[] = [
  { experts: 1, topk: 1, groups: 1, limitedGroups: 1, groupScore: 0 },
  { experts: 7, topk: 3, groups: 1, limitedGroups: 1, groupScore: 0 },
  { experts: 16, topk: 16, groups: 1, limitedGroups: 1, groupScore: 0 },
  { experts: 8, topk: 3, groups: 4, limitedGroups: 2, groupScore: 1 },
  { experts: 12, topk: 4, groups: 3, limitedGroups: 1, groupScore: 2 },
  { experts: 6, topk: 2, groups: 6, limitedGroups: 3, groupScore: 2 },
  { experts: 160, topk: 6, groups: 8, limitedGroups: 3, groupScore: 1 },
  { experts: 256, topk: 8, groups: 8, limitedGroups: 4, groupScore: 2 },
];
const FORMS = [0, 1].flatMap((scoreFunc) => [0, 1].map((normalize) => ({ scoreFunc, normalize })));
const ROWS = [0, 1, 5, 70];
const LARGEST_LOGIT = 3;

/** Whether no two selection scores are so close, and yet different, that rounding could swap them. */
function hasClearChoice(logits: Float64Array, bias: Float64Array | undefined, scoreFunc: number): boolean {
  const powers = logits.map((logit) => Math.exp(logit));
  const sum = powers.reduce((a, b) => a + b, 0);
  const selection = Array.from(powers, (power, e) => {
    const score = scoreFunc === 1 ? power / (1 + power) : power / sum;
    const shift = bias?.[e] ?? 0;
    return { value: score + shift, size: score + Math.abs(shift) };
  }).toSorted((a, b) => a.value - b.value);
  return selection.every(({ value, size }, i) => {
    const gap = value - (selection[i - 1]?.value ?? -Infinity);
    return gap === 0 || gap > 2 ** -18 * size;
  });
}

/** Row 1 of several has all experts equal; in row 2 every second expert equals its neighbour. */
function routerLogits(
  rng: Rng,
  n: number,
  bias: Float64Array | undefined,
  experts: number,
  scoreFunc: number,
): Float64Array {
  const logits = new Float64Array(n * experts);
  for (let r = 0; r < n; r++) {
    let row;
    do {
      row = Float64Array.from(new Float32Array(uniform(rng, experts, LARGEST_LOGIT)));
      if (r === 1) row.fill(0.5);
      if (r === 2) row = row.map((logit, e) => (e % 2 === 1 ? row![e - 1]! : logit));
    } while (r !== 1 && !hasClearChoice(row, bias, scoreFunc));
    logits.set(row, r * experts);
  }
  return logits;
}

function* route(rng: Rng): Iterable<Case<"route">> {
  for (const routing of ROUTINGS) {
    for (const form of FORMS) {
      for (const n of ROWS) {
        for (const withBias of [false, true]) {
          const { experts, topk } = routing;
          const numbers = { n, ...routing, ...form, routeScale: 2.5 };
          const growth = { terms: experts, exponent: 2 * LARGEST_LOGIT };
          const bias = withBias ? uniform(rng, experts, 0.2) : undefined;
          yield {
            title: `${withBias ? "biased" : "unbiased"}, ${JSON.stringify(numbers)}`,
            fields: {
              logits: f32(routerLogits(rng, n, bias, experts, form.scoreFunc)),
              bias: bias && f32(bias),
              scores: blank("f32", n * experts),
              idx: blank("i32", n * topk),
              weights: blank("f32", n * topk),
            },
            numbers,
            bounds: ({ scores, weights }) => ({
              scores: bound("exponential", scores, growth),
              weights: bound("exponential", weights, { ...growth, terms: 2 * experts }),
            }),
          };
        }
      }
    }
  }
}

/** A routing of random logits, as the reference makes it. */
function routed(
  rng: Rng,
  n: number,
  { experts, topk }: Routing,
  scoreFunc: number,
): Record<"scores" | "idx", Float64Array> {
  return runKernel(
    reference,
    "route",
    {
      logits: f32(uniform(rng, n * experts, 3)),
      bias: undefined,
      scores: blank("f32", n * experts),
      idx: blank("i32", n * topk),
      weights: blank("f32", n * topk),
    },
    { n, experts, topk, groups: 1, limitedGroups: 1, groupScore: 0, scoreFunc, normalize: 0, routeScale: 1 },
  );
}

function* routeBackward(rng: Rng): Iterable<Case<"routeBackward">> {
  const given = [
    { weights: true, own: false },
    { weights: false, own: true },
    { weights: true, own: true },
  ];
  for (const routing of ROUTINGS) {
    for (const { scoreFunc, normalize } of FORMS) {
      for (const n of ROWS) {
        for (const { weights, own } of given) {
          const { experts, topk } = routing;
          const { scores, idx } = routed(rng, n, routing, scoreFunc);
          const numbers = { n, experts, topk, scoreFunc, normalize, routeScale: 2.5 };
          const fields = {
            scores: f32(scores),
            idx: i32(idx),
            dWeights: weights ? f32(uniform(rng, n * topk)) : undefined,
            dScores: own ? f32(uniform(rng, n * experts)) : undefined,
            dLogits: blank("f32", n * experts),
          };
          // ds ≤ 1 + 2.5 · (1 / S + Σ s / S²) with S the sum of the chosen; each logit then gets s · (|ds| + Σ s |ds|).
          const magnitude = scores.map((score, i) => {
            const row = Math.floor(i / experts);
            let total = 0;
            for (let a = 0; a < topk; a++) total += scores[row * experts + idx[row * topk + a]!]!;
            const ds = 1 + 2.5 * (normalize === 1 ? 2 / total : 1);
            return score * ds * 2;
          });
          yield {
            title: `${weights ? "dWeights" : ""} ${own ? "dScores" : ""} ${JSON.stringify(numbers)}`,
            fields,
            numbers,
            bounds: () => ({ dLogits: bound("arithmetic", magnitude, { terms: experts }) }),
          };
        }
      }
    }
  }
}

/** Includes experts that nobody chose. */
function* moePlan(rng: Rng): Iterable<Case<"moePlan">> {
  for (const { experts, topk } of ROUTINGS) {
    for (const n of [...ROWS, 3000]) {
      const slots = n * topk;
      yield {
        title: `${n} tokens, ${topk} of ${experts}`,
        fields: {
          idx: i32(indices(rng, slots, Math.ceil(experts / 2))),
          offsets: blank("i32", experts + 1),
          rowToken: blank("i32", slots),
          rowSlot: blank("i32", slots),
          slotRow: blank("i32", slots),
        },
        numbers: { n, topk, experts },
      };
    }
  }
}

function permutation(rng: Rng, length: number): number[] {
  const order = Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = rng.nextUint32() % (i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

function* combine(rng: Rng): Iterable<Case<"combine">> {
  for (const d of [1, 7, 16, 33, 130]) {
    for (const topk of [1, 2, 8]) {
      for (const n of ROWS) {
        for (const [withBase, accumulate] of [
          [false, 0],
          [true, 0],
          [false, 1],
          [true, 1],
        ] as const) {
          const test = {
            title: `${n} × ${topk} × ${d}, ${withBase ? "with" : "without"} base, accumulate ${accumulate}`,
            fields: {
              ys: f32(uniform(rng, n * topk * d)),
              slotRow: i32(permutation(rng, n * topk)),
              base: withBase ? f32(uniform(rng, n * d)) : undefined,
              y: f32(uniform(rng, n * d)),
            },
            numbers: { n, topk, d, accumulate },
          };
          yield linear("combine", test, "y", { family: "arithmetic", terms: topk + 2 });
        }
      }
    }
  }
}

function* balanceLoss(rng: Rng): Iterable<Case<"balanceLoss">> {
  const SEGMENTS = [
    [0, 1],
    [0, 1, 2, 5],
    [0, 5],
    [0, 130, 300],
    [0, 7, 7, 300],
  ];
  for (const routing of ROUTINGS) {
    for (const scoreFunc of [0, 1]) {
      for (const starts of SEGMENTS) {
        const { experts, topk } = routing;
        const n = starts.at(-1)!;
        const { scores, idx } = routed(rng, n, routing, scoreFunc);
        yield {
          title: `segments ${starts.join(", ")}; ${topk} of ${experts}, scoreFunc ${scoreFunc}`,
          fields: {
            scores: f32(scores),
            idx: i32(idx),
            segments: i32(starts),
            loss: blank("f32", 1),
            dScores: blank("f32", n * experts),
          },
          numbers: { n, experts, topk, segments: starts.length - 1, alpha: 0.01 },
          bounds: (want) => ({
            loss: bound("arithmetic", want.loss, { terms: n + experts }),
            dScores: bound("arithmetic", balanceMagnitude(scores, idx, starts, routing), { terms: experts }),
          }),
        };
      }
    }
  }
}

/** α / (segments · T · S) · (f_e + Σ_j f_j score_j / S), where no f_j is larger than the largest one. */
function balanceMagnitude(
  scores: Float64Array,
  idx: Float64Array,
  starts: readonly number[],
  { experts, topk }: Routing,
): Float64Array {
  const magnitude = new Float64Array(scores.length);
  for (const [segment, start] of starts.slice(0, -1).entries()) {
    const end = starts[segment + 1]!;
    const counts = new Float64Array(experts);
    for (const e of idx.subarray(start * topk, end * topk)) counts[e]!++;
    const largest = (experts / (topk * (end - start))) * maxAbs(counts);
    for (let r = start; r < end; r++) {
      const sum = scores.subarray(r * experts, (r + 1) * experts).reduce((a, b) => a + b, 0);
      magnitude.fill((0.01 / (starts.length - 1) / (end - start) / sum) * 2 * largest, r * experts, (r + 1) * experts);
    }
  }
  return magnitude;
}

function* expertCounts(rng: Rng): Iterable<Case<"expertCounts">> {
  for (const n of [1, 17, 3000]) {
    for (const experts of [1, 7, 256]) {
      for (const accumulate of [0, 1]) {
        const fields = { idx: i32(indices(rng, n, experts)), counts: f32(indices(rng, experts, 100)) };
        yield { title: `${n} of ${experts}, accumulate ${accumulate}`, fields, numbers: { n, experts, accumulate } };
      }
    }
  }
}

function* routerBiasInto(rng: Rng): Iterable<Case<"routerBiasInto">> {
  for (const experts of [1, 7, 16, 256]) {
    // Counts of half the experts are the mean itself.
    const counts = indices(rng, experts, 50).map((count, e) => (e % 2 === 0 ? 50 : e % 4 === 1 ? count : 100 - count));
    const bias = uniform(rng, experts, 0.1);
    yield {
      title: `${experts} experts`,
      fields: { counts: f32(counts), bias: f32(bias) },
      numbers: { experts, speed: 0.001 },
      bounds: () => ({ bias: bound("arithmetic", maxAbs(bias) + 0.001) }),
    };
  }
}

export const MOE_CASES = {
  route,
  routeBackward,
  moePlan,
  combine,
  balanceLoss,
  expertCounts,
  routerBiasInto,
} satisfies { [K in KernelName]?: Cases<K> };
