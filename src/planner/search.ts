/**
 * Search for the fastest layout that fits: every layout of a grid is accounted for as illegal (by which identity), cut
 * by a bound, or evaluated. A bound is never above what it bounds, so that it cuts only what cannot be among the best.
 *
 * The bounds, for one structure (degrees and micro-batch): work and bubble without recomputation take at most the time
 * of any of its layouts; with everything recomputed it holds at most the memory of any with the same ZeRO stage.
 */

import {
  brokenIdentity,
  completeLayout,
  IDENTITIES,
  type Layout,
  type Recompute,
  type Schedule,
  type ZeroStage,
} from "./layout.ts";
import type { Evaluation, TrainingEvaluator } from "./training.ts";

/** Values that the search tries for each setting. */
export interface SearchGrid {
  readonly tp: readonly number[];
  readonly pp: readonly number[];
  readonly vp: readonly number[];
  readonly cp: readonly number[];
  readonly ep: readonly number[];
  readonly etp: readonly number[];
  readonly zero: readonly ZeroStage[];
  readonly recompute: readonly Recompute[];
  readonly microBatchSize: readonly number[];
}

const powersOfTwo = (most: number): number[] => Array.from({ length: Math.log2(most) + 1 }, (_, i) => 2 ** i);

/** In each list from the least to the most, which the bounds rely on. */
export const SEARCH_GRID: SearchGrid = {
  tp: powersOfTwo(16),
  pp: powersOfTwo(32),
  vp: powersOfTwo(8),
  cp: powersOfTwo(16),
  ep: powersOfTwo(256),
  etp: powersOfTwo(8),
  zero: [0, 1, 2, 3],
  recompute: ["none", "selective", "first-50", "first-80", "full"],
  microBatchSize: powersOfTwo(8),
};

export interface SearchSettings {
  readonly world: number;
  readonly globalBatchSize: number;
  readonly seqLen: number;
  /** Data-parallel replicas, where they are given; else what the other degrees leave. */
  readonly dp?: number;
  /** Of pipelines without virtual stages; those with them are interleaved. "1f1b" by default. */
  readonly schedule?: Schedule;
  readonly grid?: SearchGrid;
  /** Whether bounds may cut; true. */
  readonly prune?: boolean;
  /** How many of the best are kept; 10. */
  readonly keep?: number;
}

export interface SearchResult {
  /** The fastest layouts that fit, fastest first; equally fast ones by kinds of parallelism, memory, order of the grid. */
  readonly best: readonly Evaluation[];
  /** Of the layouts that were evaluated and do not fit, the one that needs the least memory. */
  readonly nearest: Evaluation | undefined;
  readonly counts: SearchCounts;
}

/** `grid` = all of `illegal` + `cutByMemory` + `cutByTime` + `tooLarge` + `slower` + the best. */
export interface SearchCounts {
  readonly grid: number;
  /** By the name of the first identity that fails. */
  readonly illegal: Readonly<Record<string, number>>;
  /** Not evaluated: the same layout with everything recomputed does not fit. */
  readonly cutByMemory: number;
  /** Not evaluated: work and bubble alone take longer than the last of the best. */
  readonly cutByTime: number;
  /** Evaluated: does not fit. */
  readonly tooLarge: number;
  /** Evaluated: fits, and is slower than the best. */
  readonly slower: number;
}

interface Tally {
  readonly illegal: Record<string, number>;
  cutByMemory: number;
  cutByTime: number;
  tooLarge: number;
  slower: number;
  /** Of the layouts that do not fit, the one that needs the least memory. */
  nearest: Evaluation | undefined;
}

/** Degrees and micro-batch; ZeRO and recomputation are still open. */
interface Structure {
  readonly layout: Layout;
  /** Place of its first layout in the grid. */
  readonly order: number;
  /** Seconds that each of its layouts takes at least. */
  readonly boundSec: number;
}

/** Sums in another order may differ in the last digits; a bound cuts only beyond this. */
const ROUNDING = 1 + 1e-7;

/** The fastest layouts of the grid, and what became of all others. */
export function searchLayouts(evaluator: TrainingEvaluator, settings: SearchSettings): SearchResult {
  const { grid = SEARCH_GRID, prune = true, keep = 10 } = settings;
  const tally: Tally = { illegal: {}, cutByMemory: 0, cutByTime: 0, tooLarge: 0, slower: 0, nearest: undefined };
  const best = new BestList(keep);
  for (const structure of legalStructures(evaluator, settings, grid, tally)) {
    if (prune && structure.boundSec > best.worstSec() * ROUNDING) tally.cutByTime += innerSize(grid);
    else searchStructure(evaluator, structure, { grid, prune, best, tally });
  }
  const { nearest, ...outcomes } = tally;
  return { best: best.evaluations(), nearest, counts: { grid: gridSize(grid), ...outcomes } };
}

function innerSize({ zero, recompute }: SearchGrid): number {
  return zero.length * recompute.length;
}

function gridSize(grid: SearchGrid): number {
  return Object.values(grid).reduce((product, values: readonly unknown[]) => product * values.length, 1);
}

/** Legal structures, the most promising first; the illegal ones go into the tally. */
function legalStructures(
  evaluator: TrainingEvaluator,
  settings: SearchSettings,
  grid: SearchGrid,
  tally: Tally,
): Structure[] {
  const { shape } = evaluator.job;
  const structures: Structure[] = [];
  let order = 0;
  for (const layout of layoutsOf(settings, grid)) {
    const broken = brokenIdentity(layout, shape, settings.world);
    if (broken < 0) structures.push({ layout, order, boundSec: boundSec(evaluator, layout) });
    else tally.illegal[IDENTITIES[broken]!.name] = (tally.illegal[IDENTITIES[broken]!.name] ?? 0) + innerSize(grid);
    order += innerSize(grid);
  }
  return structures.toSorted((a, b) => a.boundSec - b.boundSec || a.order - b.order);
}

function* layoutsOf(settings: SearchSettings, grid: SearchGrid): Generator<Layout> {
  const { world, globalBatchSize, seqLen, schedule = "1f1b", dp } = settings;
  const given = { globalBatchSize, seqLen, ...(dp === undefined ? {} : { dp }) };
  for (const tp of grid.tp)
    for (const pp of grid.pp)
      for (const vp of grid.vp)
        for (const cp of grid.cp)
          for (const ep of grid.ep)
            for (const etp of grid.etp)
              for (const microBatchSize of grid.microBatchSize) {
                const degrees = { tp, pp, vp, cp, ep, etp, microBatchSize };
                const order = vp > 1 && schedule === "1f1b" ? "interleaved" : schedule;
                yield completeLayout({ ...degrees, schedule: order, ...given }, world);
              }
}

/** Work and bubble without recomputation, which neither ZeRO nor recomputation can lessen. */
function boundSec(evaluator: TrainingEvaluator, layout: Layout): number {
  const { workSec, bubbleSec } = evaluator.evaluate({ ...layout, zero: 0, recompute: "none" });
  return workSec + bubbleSec;
}

interface Search {
  readonly grid: SearchGrid;
  readonly prune: boolean;
  readonly best: BestList;
  readonly tally: Tally;
}

function searchStructure(evaluator: TrainingEvaluator, { layout, order }: Structure, search: Search): void {
  const { grid, prune } = search;
  grid.zero.forEach((zero, z) => {
    const first = order + z * grid.recompute.length;
    const visit = (i: number): Evaluation =>
      record(evaluator.evaluate({ ...layout, zero, recompute: grid.recompute[i]! }), first + i, search);
    if (prune) visitWithBounds(grid.recompute, visit, search);
    else grid.recompute.forEach((_, i) => visit(i));
  });
}

/** "full" holds the least and "none" takes the least time of all recompute settings of a layout. */
function visitWithBounds(settings: readonly Recompute[], visit: (i: number) => Evaluation, search: Search): void {
  const left = new Set(settings.keys());
  const full = settings.indexOf("full");
  if (full >= 0) {
    left.delete(full);
    if (!visit(full).fits) {
      search.tally.cutByMemory += left.size;
      return;
    }
  }
  const none = settings.indexOf("none");
  if (none >= 0) {
    left.delete(none);
    if (visit(none).stepSec > search.best.worstSec() * ROUNDING) {
      search.tally.cutByTime += left.size;
      return;
    }
  }
  for (const i of left) visit(i);
}

function record(evaluation: Evaluation, order: number, { best, tally }: Search): Evaluation {
  if (evaluation.fits) {
    tally.slower += best.add({ evaluation, order });
  } else {
    tally.tooLarge++;
    if (evaluation.memoryBytes < (tally.nearest?.memoryBytes ?? Infinity)) tally.nearest = evaluation;
  }
  return evaluation;
}

interface Ranked {
  readonly evaluation: Evaluation;
  readonly order: number;
}

/** The best so far, sorted. */
class BestList {
  readonly #keep: number;
  readonly #list: Ranked[] = [];

  constructor(keep: number) {
    this.#keep = keep;
  }

  /** Seconds of the last one that is kept; infinite while there is room. */
  worstSec(): number {
    return this.#list.length < this.#keep ? Infinity : this.#list.at(-1)!.evaluation.stepSec;
  }

  /** How many drop out, the new one counted: 0 or 1. */
  add(ranked: Ranked): number {
    const at = this.#list.findIndex((other) => compare(ranked, other) < 0);
    this.#list.splice(at < 0 ? this.#list.length : at, 0, ranked);
    return this.#list.splice(this.#keep).length;
  }

  evaluations(): Evaluation[] {
    return this.#list.map(({ evaluation }) => evaluation);
  }
}

function compare(a: Ranked, b: Ranked): number {
  const { layout, memoryBytes } = a.evaluation;
  return (
    comparedSec(a) - comparedSec(b) ||
    kindsOfParallelism(layout) - kindsOfParallelism(b.evaluation.layout) ||
    memoryBytes - b.evaluation.memoryBytes ||
    a.order - b.order
  );
}

/** Sums in another order are the same time. */
function comparedSec({ evaluation }: Ranked): number {
  return Number(evaluation.stepSec.toPrecision(9));
}

/** Data parallelism is not counted: it is what the others leave. */
function kindsOfParallelism({ tp, pp, vp, cp, ep, etp }: Layout): number {
  return [tp, pp, vp, cp, ep, etp].filter((degree) => degree > 1).length;
}
