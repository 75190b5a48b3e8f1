/**
 * How a training job is laid out over devices, and which layouts exist at all. A layout is legal when every identity
 * of IDENTITIES holds; an illegal one is told by the name of the first that fails.
 *
 * **Source:** Megatron-Core parallel folding: world = TP·CP·DP·PP for the dense part and ETP·EP·EDP·PP for experts.
 */

import { ConfigError } from "../core/errors.ts";

export const SCHEDULES = ["gpipe", "1f1b", "interleaved", "zb1p", "zb-h1", "zb-h2", "dualpipe", "dualpipev"] as const;

/** Order in which a pipeline stage runs its micro-batches. */
export type Schedule = (typeof SCHEDULES)[number];

/**
 * What backward computes again: nothing; what is cheap (norms, SwiGLU products, MLA up-projections; the scores of
 * unfused attention); whole layers, all of them or the first so many per cent of a stage.
 */
export type Recompute = "none" | "selective" | "full" | `first-${number}`;

/** 0: nothing sharded over data parallel ranks; 1: optimizer states; 2: and gradients; 3: and weights. */
export type ZeroStage = 0 | 1 | 2 | 3;

export interface Layout {
  /** Tensor-parallel ranks of the dense part. */
  readonly tp: number;
  /** Pipeline-parallel ranks. */
  readonly pp: number;
  /** Chunks of layers that one pipeline rank holds (virtual stages); above 1 with `interleaved` only. */
  readonly vp: number;
  /** Context-parallel ranks: they share each sequence. */
  readonly cp: number;
  /** Ranks among which the routed experts are dealt out. */
  readonly ep: number;
  /** Tensor-parallel ranks of each routed expert. */
  readonly etp: number;
  /** Data-parallel replicas of the dense part; context-parallel ranks not counted. */
  readonly dp: number;
  readonly zero: ZeroStage;
  readonly recompute: Recompute;
  readonly schedule: Schedule;
  /** Whether norms and residuals are split over the tensor-parallel ranks by sequence. */
  readonly sequenceParallel: boolean;
  /** Sequences of one pass. */
  readonly microBatchSize: number;
  /** Sequences of one optimizer step on all devices. */
  readonly globalBatchSize: number;
  /** Tokens of a sequence. */
  readonly seqLen: number;
}

/** What the identities need to know of a model. */
export interface LayoutModel {
  readonly nLayers: number;
  readonly nHeads: number;
  /** Hidden widths of SwiGLUs that tensor parallelism cuts: dense layers' and shared experts'. */
  readonly ffnWidths: readonly number[];
  /** 0 without routed experts. */
  readonly nRoutedExperts: number;
  readonly moeInterDim: number;
}

/** Settings of a layout before the derived ones are filled in. */
export type LayoutInput = Partial<Layout> & Pick<Layout, "globalBatchSize" | "seqLen">;

/** Fills what was left out: every degree 1, dp what is left of `world`, one sequence a pass, ZeRO-1, no recompute. */
export function completeLayout(input: LayoutInput, world: number): Layout {
  const { tp = 1, pp = 1, vp = 1, cp = 1 } = input;
  return {
    tp,
    pp,
    vp,
    cp,
    ep: 1,
    etp: 1,
    dp: world / (tp * cp * pp),
    zero: 1,
    recompute: "none",
    schedule: vp > 1 ? "interleaved" : "1f1b",
    sequenceParallel: true,
    microBatchSize: 1,
    ...input,
  };
}

/** Devices that a layout uses. */
export function worldSize({ tp, cp, dp, pp }: Layout): number {
  return tp * cp * dp * pp;
}

/** Replicas of each expert shard: what is left of a pipeline stage's ranks. */
export function expertDataParallel({ tp, cp, dp, ep, etp }: Layout): number {
  return (tp * cp * dp) / (ep * etp);
}

/** Micro-batches of one pipeline in one step. */
export function numMicroBatches({ globalBatchSize, microBatchSize, dp }: Layout): number {
  return globalBatchSize / (microBatchSize * dp);
}

/** Share of a stage's layers that is recomputed whole. @throws ConfigError for a share outside (0, 100). */
export function fullRecomputeShare(recompute: Recompute): number {
  if (recompute === "none" || recompute === "selective") return 0;
  if (recompute === "full") return 1;
  const percent = Number(recompute.slice("first-".length));
  if (!(percent > 0 && percent < 100)) {
    throw new ConfigError("recompute", "first-N must have N between 0 and 100", recompute, "for example first-80");
  }
  return percent / 100;
}

/** A rule that every layout keeps; `rule` is the sentence with the numbers of the one that breaks it. */
interface Identity {
  readonly name: string;
  readonly holds: (layout: Layout, model: LayoutModel, world: number) => boolean;
  readonly rule: (layout: Layout, model: LayoutModel, world: number) => string;
}

const divides = (divisor: number, n: number): boolean => n % divisor === 0;

/** Whether a rank runs forward of one direction beside backward of the other. */
export function isTwoWay({ schedule }: Pick<Layout, "schedule">): boolean {
  return schedule === "dualpipe" || schedule === "dualpipev";
}

/** In the order in which they are checked: each may rely on those before it. */
export const IDENTITIES: readonly Identity[] = [
  {
    name: "whole",
    holds: (l) =>
      [l.tp, l.pp, l.vp, l.cp, l.ep, l.etp, l.microBatchSize, l.globalBatchSize, l.seqLen].every(
        (n) => Number.isSafeInteger(n) && n >= 1,
      ),
    rule: () => "every degree, batch and sequence length is a whole number of at least 1",
  },
  {
    name: "world",
    holds: (l, _, world) => Number.isSafeInteger(l.dp) && l.dp >= 1 && worldSize(l) === world,
    rule: (l, _, world) =>
      Number.isSafeInteger(l.dp)
        ? `TP·CP·DP·PP = world (${l.tp}·${l.cp}·${l.dp}·${l.pp} against ${world})`
        : `TP·CP·DP·PP = world: TP·CP·PP (${l.tp}·${l.cp}·${l.pp}) does not divide ${world} devices`,
  },
  {
    name: "expert-world",
    holds: (l) => divides(l.ep * l.etp, l.tp * l.cp * l.dp),
    rule: (l) => `ETP·EP divides TP·CP·DP (${l.etp}·${l.ep} against ${l.tp * l.cp * l.dp})`,
  },
  {
    name: "experts",
    holds: (l, m) => (m.nRoutedExperts === 0 ? l.ep * l.etp === 1 : divides(l.ep, m.nRoutedExperts)),
    rule: (l, m) =>
      m.nRoutedExperts === 0
        ? `EP and ETP are 1 without routed experts (${l.ep} and ${l.etp})`
        : `EP divides the routed experts (${l.ep} against ${m.nRoutedExperts})`,
  },
  {
    name: "expert-width",
    holds: (l, m) => l.etp === 1 || divides(l.etp, m.moeInterDim),
    rule: (l, m) => `ETP divides the experts' width (${l.etp} against ${m.moeInterDim})`,
  },
  {
    name: "heads",
    holds: (l, m) => divides(l.tp, m.nHeads),
    rule: (l, m) => `TP divides the attention heads (${l.tp} against ${m.nHeads})`,
  },
  {
    name: "ffn-width",
    holds: (l, m) => m.ffnWidths.every((width) => divides(l.tp, width)),
    rule: (l, m) => `TP divides the FFN widths (${l.tp} against ${m.ffnWidths.join(", ")})`,
  },
  {
    name: "sequence",
    holds: (l) => divides((l.cp > 1 ? 2 * l.cp : 1) * (l.sequenceParallel ? l.tp : 1), l.seqLen),
    rule: (l) =>
      `${l.cp > 1 ? "2·CP" : "CP"}${l.sequenceParallel ? "·TP" : ""} divides the sequence (CP ${l.cp}, TP ${l.tp} against ${l.seqLen})`,
  },
  {
    name: "layers",
    holds: (l, m) => l.pp * l.vp * (l.schedule === "dualpipev" ? 2 : 1) <= m.nLayers,
    rule: (l, m) => `PP·VP is at most the layers (${l.pp}·${l.vp} against ${m.nLayers})`,
  },
  {
    name: "batch",
    holds: (l) => divides(l.microBatchSize * l.dp, l.globalBatchSize),
    rule: (l) => `micro-batch·DP divides the global batch (${l.microBatchSize}·${l.dp} against ${l.globalBatchSize})`,
  },
  {
    name: "schedule",
    holds: (l) => (l.schedule === "interleaved" ? l.vp > 1 && l.pp > 1 : l.vp === 1) && (!isTwoWay(l) || l.pp > 1),
    rule: (l) =>
      isTwoWay(l)
        ? `${l.schedule} has PP above 1 and VP 1 (PP ${l.pp}, VP ${l.vp})`
        : `VP above 1 goes with the interleaved schedule and PP above 1 (VP ${l.vp}, PP ${l.pp}, ${l.schedule})`,
  },
  {
    name: "micro-batches",
    holds: (l) => microBatchesFit(l, numMicroBatches(l)),
    rule: (l) =>
      l.schedule === "interleaved"
        ? `PP divides the micro-batches of a step (${l.pp} against ${numMicroBatches(l)})`
        : `${l.schedule} has even PP and an even number of at least 2·PP micro-batches (PP ${l.pp}, ${numMicroBatches(l)} micro-batches)`,
  },
];

/** **Source:** Megatron-LM (interleaving); DualPipe README and its asserts. */
function microBatchesFit(layout: Layout, micros: number): boolean {
  if (layout.schedule === "interleaved") return divides(layout.pp, micros);
  if (layout.schedule === "dualpipe") return divides(2, layout.pp) && divides(2, micros) && micros >= 2 * layout.pp;
  if (layout.schedule === "dualpipev") return micros >= 2 * layout.pp;
  return true;
}

/** Index in IDENTITIES of the first identity that fails, or −1 for a legal layout. */
export function brokenIdentity(layout: Layout, model: LayoutModel, world: number): number {
  return IDENTITIES.findIndex(({ holds }) => !holds(layout, model, world));
}

/** @throws ConfigError that names the identity which fails. */
export function checkLayout(layout: Layout, model: LayoutModel, world: number): void {
  const identity = IDENTITIES[brokenIdentity(layout, model, world)];
  if (identity === undefined) return;
  throw new ConfigError(
    "layout",
    `identity "${identity.name}": ${identity.rule(layout, model, world)}`,
    layoutText(layout),
    "change one of the numbers, or leave them out and let the search choose",
  );
}

/** `TP1 PP16 VP1 CP1 EP64 ETP1 DP128 ZeRO-1 1f1b recompute none MBS1` */
export function layoutText(l: Layout): string {
  const degrees = `TP${l.tp} PP${l.pp} VP${l.vp} CP${l.cp} EP${l.ep} ETP${l.etp} DP${Number.isSafeInteger(l.dp) ? l.dp : "?"}`;
  return `${degrees} ZeRO-${l.zero} ${l.schedule} recompute ${l.recompute} MBS${l.microBatchSize}`;
}
