/**
 * Pipeline schedules: micro-batches in flight and the bubble.
 *
 * **Source:** Huang et al. 2019 (GPipe), Narayanan et al. 2021 (1F1B, interleaved), Qi et al. 2023 (ZB-H1, ZB-H2),
 * DualPipe README (ZB1P, DualPipe, DualPipeV); Korthikanti et al. 2022 for the interleaved count.
 */

import type { Layout, Schedule } from "./layout.ts";

/**
 * The bubble of a step is `steps · max(0, F + backward·B − weight·W)`: F forward, B backward in full, W its
 * weight-gradient part, all of one micro-batch on one rank. An overlapped pair F&B takes F + B.
 */
export interface Bubble {
  readonly steps: number;
  readonly backward: number;
  readonly weight: number;
}

export function bubbleOf({ schedule, pp, vp }: Pick<Layout, "schedule" | "pp" | "vp">): Bubble {
  if (pp === 1) return { steps: 0, backward: 1, weight: 0 };
  switch (schedule) {
    case "gpipe":
    case "1f1b":
      return { steps: pp - 1, backward: 1, weight: 0 };
    case "interleaved":
      return { steps: (pp - 1) / vp, backward: 1, weight: 0 };
    case "zb1p":
    case "zb-h1":
      return { steps: pp - 1, backward: 1, weight: 2 };
    case "zb-h2":
      return { steps: pp - 1, backward: 1, weight: 3 };
    case "dualpipe":
      return { steps: pp / 2 - 1, backward: 2, weight: 3 };
    case "dualpipev":
      // 2·PP virtual stages of half the layers: (2·PP/2 − 1) chunks of half the time.
      return { steps: (pp - 1) / 2, backward: 2, weight: 3 };
  }
}

/** Share of a step that its bubble takes, from the times of one micro-batch on one rank and the micro-batches. */
export function bubbleFraction(
  layout: Pick<Layout, "schedule" | "pp" | "vp">,
  micros: number,
  { f, b, w }: { f: number; b: number; w: number },
): number {
  const { steps, backward, weight } = bubbleOf(layout);
  const bubble = steps * Math.max(0, f + backward * b - weight * w);
  return bubble / (bubble + micros * (f + b));
}

/**
 * Micro-batches whose activations a pipeline rank holds at most, in units of all its layers; `stage` counts from 0.
 * For the two-way schedules this is the count of the part that stands at place `stage` of its direction.
 */
export function microBatchesInFlight(
  schedule: Schedule,
  stage: number,
  pp: number,
  vp: number,
  micros: number,
): number {
  switch (schedule) {
    case "gpipe":
      return micros;
    case "1f1b":
    case "zb1p":
    case "zb-h1":
    case "dualpipe":
    case "dualpipev":
      return Math.min(micros, pp - stage);
    case "interleaved":
      return Math.min(micros * vp, 2 * (pp - stage - 1) + (vp - 1) * pp + 1) / vp;
    case "zb-h2":
      return Math.min(micros, 2 * (pp - stage) - 1);
  }
}
