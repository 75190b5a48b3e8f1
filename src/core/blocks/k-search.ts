/**
 * Writes Q4_K and Q6_K: for each group the scale (and minimum) that leaves the least squared error, then the nearest
 * codes under the scales as they are stored. Rounding to the largest value alone is far from the best fit, so several
 * widths of the range are tried, and each is refitted by least squares to the codes that it gives.
 *
 * Every value is visited some thirty times, so the loops over values allocate nothing: a group is `values` from `at` on,
 * and its codes are in one array for all groups.
 *
 * **Source:** ggml-org/ggml ggml-common.h (layouts); the search is that of ggml-quants.c `make_qkx2_quants` (Q4_K) and
 * `make_qx_quants` (Q6_K) in outline.
 */

import type { EncodeBlock } from "./block-codec.ts";
import { GROUPS } from "./k-blocks.ts";
import { halfAt, putHalf } from "./plain-blocks.ts";

const BLOCK = 256;
/** Widths that are tried, as a change of the number of steps over the range: from −1 to 1 by tenths. */
const TRIES = Array.from({ length: 21 }, (_, i) => (i - 10) / 10);
const Q4_GROUP = 32;
const Q4_STEPS = 15;
const SIX_BITS = 63;

/** `value ≈ scale · code − min`, with codes from 0 and both at least 0. */
interface ScaleAndMin {
  readonly scale: number;
  readonly min: number;
}

/** The error is Σ(scale · code − min − value)². */
interface AffineFit extends ScaleAndMin {
  readonly error: number;
}

/** The codes of the try at hand. */
const codes = new Float64Array(Q4_GROUP);

export const encodeQ4K: EncodeBlock = (values, from, out, to) => {
  const fits = Array.from({ length: GROUPS }, (_, g) => fitAffine(values, from + g * Q4_GROUP));
  putHalf(out, to, Math.max(...fits.map((fit) => fit.scale)) / SIX_BITS);
  putHalf(out, to + 2, Math.max(...fits.map((fit) => fit.min)) / SIX_BITS);
  out.fill(0, to + 4, to + 144);
  const units = { scale: halfAt(out, to), min: halfAt(out, to + 2) };
  for (let g = 0; g < GROUPS; g++) {
    const at = from + g * Q4_GROUP;
    const stored = storedFit(values, at, fits[g]!, units);
    putCodes(out, to + 4, g, stored);
    const nibbles = to + 16 + (g >> 1) * Q4_GROUP;
    putNibbles(values, at, out, nibbles, (g & 1) * 4, units.scale * stored.scale, units.min * stored.min);
  }
};

/** The six-bit codes of scale and minimum: those around the fit that leave the least error once they are rounded. */
function storedFit(values: Float32Array, at: number, fit: ScaleAndMin, units: ScaleAndMin): ScaleAndMin {
  let best = { scale: 0, min: 0, error: Infinity };
  const middle = { scale: unitsIn(fit.scale, units.scale), min: unitsIn(fit.min, units.min) };
  for (let scale = Math.max(0, middle.scale - 1); scale <= Math.min(SIX_BITS, middle.scale + 1); scale++) {
    for (let min = Math.max(0, middle.min - 1); min <= Math.min(SIX_BITS, middle.min + 1); min++) {
      const error = nearestError(values, at, units.scale * scale, units.min * min, best.error);
      if (error < best.error) best = { scale, min, error };
    }
  }
  return best;
}

/** The whole number of units nearest to a value. */
function unitsIn(value: number, unit: number): number {
  return unit === 0 ? 0 : Math.round(value / unit);
}

/** The error of a group under its nearest codes; not summed further once it reaches `limit`. */
function nearestError(values: Float32Array, at: number, scale: number, min: number, limit: number): number {
  let error = 0;
  for (let i = at; i < at + Q4_GROUP && error < limit; i++) {
    const off = scale * q4Code(values[i]!, scale, min) - min - values[i]!;
    error += off * off;
  }
  return error;
}

function q4Code(value: number, scale: number, min: number): number {
  return scale === 0 ? 0 : nearest((value + min) / scale, 0, Q4_STEPS);
}

/** The inverse of `scaleCode` and `minCode`, onto zeros. */
function putCodes(out: Uint8Array, at: number, g: number, { scale, min }: ScaleAndMin): void {
  if (g < 4) {
    out[at + g]! |= scale;
    out[at + 4 + g]! |= min;
    return;
  }
  out[at + 4 + g]! |= (scale & 15) | ((min & 15) << 4);
  out[at + g - 4]! |= (scale >>> 4) << 6;
  out[at + g]! |= (min >>> 4) << 6;
}

function putNibbles(
  values: Float32Array,
  at: number,
  out: Uint8Array,
  to: number,
  shift: number,
  scale: number,
  min: number,
): void {
  for (let i = 0; i < Q4_GROUP; i++) out[to + i]! |= q4Code(values[at + i]!, scale, min) << shift;
}

/** The largest double below one half: with 0.5 added it rounds to 1. */
const BELOW_HALF = 0.5 - 2 ** -54;

/** `Math.round` between bounds, without the branch on the fraction that a processor cannot foresee. */
function nearest(value: number, low: number, high: number): number {
  const whole = value === BELOW_HALF ? 0 : Math.floor(value + 0.5);
  return whole < low ? low : whole > high ? high : whole;
}

function fitAffine(values: Float32Array, at: number): AffineFit {
  let low = 0;
  let high = -Infinity;
  let sumX = 0;
  for (let i = at; i < at + Q4_GROUP; i++) {
    low = Math.min(low, values[i]!);
    high = Math.max(high, values[i]!);
    sumX += values[i]!;
  }
  let best: AffineFit = { scale: 0, min: -low, error: Infinity };
  if (high - low <= 0) return best;
  for (const change of TRIES) {
    codeGroup(values, at, low, high - low, Q4_STEPS + change);
    const fit = refitAffine(values, at, sumX, best.error);
    if (fit.error < best.error) best = fit;
  }
  return best;
}

/** Fills `codes` as if the range from `low` were cut into `steps`. */
function codeGroup(values: Float32Array, at: number, low: number, width: number, steps: number): void {
  for (let i = 0; i < Q4_GROUP; i++) codes[i] = nearest(((values[at + i]! - low) * steps) / width, 0, Q4_STEPS);
}

/**
 * Least squares of a group over `codes`; a minimum below 0 is held at 0.
 * @param sumX - of the group's values.
 * @param limit - an error from which on the fit is of no use.
 */
function refitAffine(values: Float32Array, at: number, sumX: number, limit: number): AffineFit {
  let sumQ = 0;
  let sumQQ = 0;
  let sumQX = 0;
  for (let i = 0; i < Q4_GROUP; i++) {
    const code = codes[i]!;
    sumQ += code;
    sumQQ += code * code;
    sumQX += code * values[at + i]!;
  }
  const spread = Q4_GROUP * sumQQ - sumQ * sumQ;
  let scale = spread > 0 ? (Q4_GROUP * sumQX - sumQ * sumX) / spread : 0;
  let min = (scale * sumQ - sumX) / Q4_GROUP;
  if (min < 0) {
    scale = sumQX / sumQQ;
    min = 0;
  }
  if (!(scale > 0)) return { scale: 0, min: 0, error: Infinity };
  return { scale, min, error: codedError(values, at, scale, min, limit) };
}

/** The error of a group under `codes`; not summed further once it reaches `limit`. */
function codedError(values: Float32Array, at: number, scale: number, min: number, limit: number): number {
  let error = 0;
  for (let i = 0; i < Q4_GROUP && error < limit; i++) {
    const off = scale * codes[i]! - min - values[at + i]!;
    error += off * off;
  }
  return error;
}

const Q6_GROUPS = 16;
const Q6_GROUP = 16;
const Q6_LOW = -32;
const Q6_HIGH = 31;

export const encodeQ6K: EncodeBlock = (values, from, out, to) => {
  const scales = Array.from({ length: Q6_GROUPS }, (_, g) => fitScale(values, from + g * Q6_GROUP));
  const widest = scales.reduce((found, scale) => (Math.abs(scale) > Math.abs(found) ? scale : found), 0);
  out.fill(0, to, to + 210);
  // The widest group has code −128, the largest magnitude that a signed byte holds.
  putHalf(out, to + 208, widest / -128);
  const unit = halfAt(out, to + 208);
  if (unit === 0) return;
  for (let g = 0; g < Q6_GROUPS; g++) out[to + 192 + g] = nearest(scales[g]! / unit, -128, 127);
  for (let i = 0; i < BLOCK; i++) putQ6(out, to, i, values[from + i]!, unit);
};

function putQ6(out: Uint8Array, to: number, i: number, value: number, unit: number): void {
  const scale = unit * ((out[to + 192 + (i >> 4)]! << 24) >> 24);
  const code = (scale === 0 ? 0 : nearest(value / scale, Q6_LOW, Q6_HIGH)) - Q6_LOW;
  const half = i >> 7;
  const run = (i >> 5) & 3;
  out[to + half * 64 + (run & 1) * 32 + (i & 31)]! |= (code & 15) << ((run >> 1) * 4);
  out[to + 128 + half * 32 + (i & 31)]! |= (code >>> 4) << (run * 2);
}

/** The scale of a group without minimum; the value of largest magnitude gets the end of the codes that reaches further. */
function fitScale(values: Float32Array, at: number): number {
  const peak = peakOf(values, at);
  if (peak === 0) return 0;
  let best = 0;
  let bestGain = -1;
  for (const change of TRIES) {
    const inverted = (Q6_LOW + change) / peak;
    let sumQQ = 0;
    let sumQX = 0;
    for (let i = at; i < at + Q6_GROUP; i++) {
      const code = nearest(values[i]! * inverted, Q6_LOW, Q6_HIGH);
      sumQQ += code * code;
      sumQX += code * values[i]!;
    }
    // What least squares takes off the error: Σx² − error.
    const gain = sumQQ > 0 ? (sumQX * sumQX) / sumQQ : 0;
    if (gain > bestGain) {
      best = sumQX / sumQQ;
      bestGain = gain;
    }
  }
  return best;
}

/** The value of largest magnitude in a group of Q6_K. */
function peakOf(values: Float32Array, at: number): number {
  let peak = 0;
  for (let i = at; i < at + Q6_GROUP; i++) if (Math.abs(values[i]!) > Math.abs(peak)) peak = values[i]!;
  return peak;
}
