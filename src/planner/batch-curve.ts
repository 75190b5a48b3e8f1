/** Decoding at growing batches: what throughput costs in latency, and the largest batch that keeps a promise. */

import { ConfigError } from "../core/errors.ts";
import { ASSUMED } from "./assumptions.ts";
import type { Device } from "./hardware.ts";
import { planInference, type InferencePlan, type InferenceSettings } from "./inference.ts";
import type { ModelShape } from "./shape.ts";

/** Times that a service promises, in seconds. */
export interface Slo {
  readonly ttftSeconds?: number;
  readonly tpotSeconds?: number;
}

export interface BatchPoint {
  /** Sequences on all devices. */
  readonly batch: number;
  readonly plan: InferencePlan;
  readonly fits: boolean;
  readonly keepsSlo: boolean;
  /** Promises that are broken. */
  readonly broken: readonly ("ttft" | "tpot")[];
}

export interface CurveSettings extends InferenceSettings {
  readonly slo?: Slo;
}

/** More sequences than any engine schedules on one device. */
const MAX_BATCH_PER_RANK = 4096;

/** Batches of 1, 2, 4, … sequences for each data-parallel rank, until the memory is full. */
export function batchCurve(shape: ModelShape, device: Device, settings: CurveSettings = {}): BatchPoint[] {
  const { devices = 1, tp = 1 } = settings;
  const points: BatchPoint[] = [];
  for (let perRank = 1; perRank <= MAX_BATCH_PER_RANK; perRank *= 2) {
    const point = batchPoint(shape, device, { ...settings, batch: (perRank * devices) / tp });
    points.push(point);
    if (!point.fits) break;
  }
  return points;
}

/** One batch. */
export function batchPoint(
  shape: ModelShape,
  device: Device,
  settings: CurveSettings & { readonly batch: number },
): BatchPoint {
  const { slo = {}, memoryShare = ASSUMED.memoryMargin, batch } = settings;
  const plan = planInference(shape, device, settings);
  const broken = [
    ...(plan.prefill.ttftSeconds > (slo.ttftSeconds ?? Infinity) ? (["ttft"] as const) : []),
    ...(plan.decode.tpotSeconds > (slo.tpotSeconds ?? Infinity) ? (["tpot"] as const) : []),
  ];
  const fits = plan.totalBytes <= device.memoryBytes * memoryShare;
  return { batch, plan, fits, keepsSlo: broken.length === 0, broken };
}

/** The largest batch that fits and keeps the promise; undefined when none does. More sequences only ever cost more. */
export function largestBatch(shape: ModelShape, device: Device, settings: CurveSettings = {}): BatchPoint | undefined {
  const { devices = 1, tp = 1 } = settings;
  const at = (perRank: number): BatchPoint =>
    batchPoint(shape, device, { ...settings, batch: (perRank * devices) / tp });
  const isGood = (perRank: number): boolean => {
    const { fits, keepsSlo } = at(perRank);
    return fits && keepsSlo;
  };
  let [good, bad] = [0, MAX_BATCH_PER_RANK + 1];
  while (bad - good > 1) {
    const middle = Math.floor((good + bad) / 2);
    if (isGood(middle)) good = middle;
    else bad = middle;
  }
  return good === 0 ? undefined : at(good);
}

/**
 * `ttft=2s,tpot=50ms`; each time has its unit.
 *
 * @throws ConfigError for another form.
 */
export function parseSlo(text: string): Slo {
  const pairs = text.split(",").map((part) => {
    const match = /^\s*(ttft|tpot)\s*=\s*(\d+(?:\.\d+)?)\s*(ms|s)\s*$/i.exec(part);
    if (match === null || Number(match[2]) <= 0) {
      throw new ConfigError(
        "--slo",
        "must be ttft=TIME,tpot=TIME or one of them, each time with its unit (ms or s)",
        text,
        "for example ttft=2s,tpot=50ms",
      );
    }
    const seconds = Number(match[2]) * (match[3]?.toLowerCase() === "s" ? 1 : 1e-3);
    return [`${match[1]!.toLowerCase()}Seconds`, seconds] as const;
  });
  return Object.fromEntries(pairs);
}
