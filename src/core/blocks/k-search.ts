/**
 * Writes Q4_K and Q6_K: for each group the scale (and minimum) that leaves the least squared error, then the nearest
 * codes under the scales as they are stored. Rounding to the largest value alone is far from the best fit, so several
 * widths of the range are tried, and each is refitted by least squares to the codes that it gives.
 */

import type { EncodeBlock } from "./block-codec.ts";
import { GROUPS } from "./k-blocks.ts";
import { halfAt, putHalf } from "./plain-blocks.ts";

const BLOCK = 256;
/** Widths that are tried, as a change of the number of steps over the range: from −1 to 1 by tenths. */
const TRIES = Array.from({ length: 21 }, (_, i) => (i - 10) / 10);
const Q4_STEPS = 15;
const SIX_BITS = 63;

/** `value ≈ scale · code − min`, with codes from 0 and both at least 0. */
interface AffineFit extends ScaleAndMin {
  readonly error: number;
}

export const encodeQ4K: EncodeBlock = (values, from, out, to) => {
  const groups = Array.from({ length: GROUPS }, (_, g) => values.subarray(from + g * 32, from + g * 32 + 32));
  const fits = groups.map(fitAffine);
  putHalf(out, to, Math.max(...fits.map((fit) => fit.scale)) / SIX_BITS);
  putHalf(out, to + 2, Math.max(...fits.map((fit) => fit.min)) / SIX_BITS);
  out.fill(0, to + 4, to + 144);
  const units = { scale: halfAt(out, to), min: halfAt(out, to + 2) };
  for (const [g, group] of groups.entries()) {
    const stored = storedFit(group, fits[g]!, units);
    putCodes(out, to + 4, g, stored);
    putQ4Group(group, out, to + 16, g, { scale: units.scale * stored.scale, min: units.min * stored.min });
  }
};

interface ScaleAndMin {
  readonly scale: number;
  readonly min: number;
}

/** The six-bit codes of scale and minimum: those around the fit that leave the least error once they are rounded. */
function storedFit(values: Float32Array, fit: ScaleAndMin, units: ScaleAndMin): ScaleAndMin {
  let best = { scale: 0, min: 0, error: Infinity };
  for (const scale of codesAround(fit.scale, units.scale)) {
    for (const min of codesAround(fit.min, units.min)) {
      const error = errorOf(values, { scale: units.scale * scale, min: units.min * min });
      if (error < best.error) best = { scale, min, error };
    }
  }
  return best;
}

/** Whole multiples of `unit` near a value, in six bits. */
function codesAround(value: number, unit: number): number[] {
  if (unit === 0) return [0];
  const middle = Math.round(value / unit);
  return [middle - 1, middle, middle + 1].filter((code) => code >= 0 && code <= SIX_BITS);
}

function errorOf(values: Float32Array, fit: ScaleAndMin): number {
  let error = 0;
  for (const value of values) error += (fit.scale * q4Code(value, fit) - fit.min - value) ** 2;
  return error;
}

function q4Code(value: number, { scale, min }: ScaleAndMin): number {
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

function putQ4Group(values: Float32Array, out: Uint8Array, at: number, g: number, fit: ScaleAndMin): void {
  for (let i = 0; i < 32; i++) out[at + (g >> 1) * 32 + i]! |= q4Code(values[i]!, fit) << ((g & 1) * 4);
}

function nearest(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, Math.round(value)));
}

function fitAffine(values: Float32Array): AffineFit {
  const low = Math.min(0, ...values);
  const width = Math.max(...values) - low;
  let best: AffineFit = { scale: 0, min: -low, error: Infinity };
  if (width <= 0) return best;
  for (const change of TRIES) {
    const codes = values.map((value) => nearest(((value - low) * (Q4_STEPS + change)) / width, 0, Q4_STEPS));
    const fit = refitAffine(values, codes);
    if (fit.error < best.error) best = fit;
  }
  return best;
}

/** Least squares of values over codes; a minimum below 0 is held at 0. */
function refitAffine(values: Float32Array, codes: Float32Array): AffineFit {
  const n = values.length;
  let [sumQ, sumQQ, sumX, sumQX] = [0, 0, 0, 0];
  for (let i = 0; i < n; i++) {
    sumQ += codes[i]!;
    sumQQ += codes[i]! * codes[i]!;
    sumX += values[i]!;
    sumQX += codes[i]! * values[i]!;
  }
  const spread = n * sumQQ - sumQ * sumQ;
  let scale = spread > 0 ? (n * sumQX - sumQ * sumX) / spread : 0;
  let min = (scale * sumQ - sumX) / n;
  if (min < 0) [scale, min] = [sumQX / sumQQ, 0];
  if (!(scale > 0)) return { scale: 0, min: 0, error: Infinity };
  let error = 0;
  for (let i = 0; i < n; i++) error += (scale * codes[i]! - min - values[i]!) ** 2;
  return { scale, min, error };
}

const Q6_GROUPS = 16;
const Q6_LOW = -32;
const Q6_HIGH = 31;

export const encodeQ6K: EncodeBlock = (values, from, out, to) => {
  const scales = Array.from({ length: Q6_GROUPS }, (_, g) =>
    fitScale(values.subarray(from + g * 16, from + g * 16 + 16)),
  );
  const widest = scales.reduce((found, scale) => (Math.abs(scale) > Math.abs(found) ? scale : found), 0);
  out.fill(0, to, to + 210);
  // The widest group has code −128, the largest magnitude that a signed byte holds.
  putHalf(out, to + 208, widest / -128);
  const unit = halfAt(out, to + 208);
  if (unit === 0) return;
  for (const [g, scale] of scales.entries()) out[to + 192 + g] = nearest(scale / unit, -128, 127);
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
function fitScale(values: Float32Array): number {
  const peak = values.reduce((found, value) => (Math.abs(value) > Math.abs(found) ? value : found), 0);
  if (peak === 0) return 0;
  let best = { scale: 0, gain: -1 };
  for (const change of TRIES) {
    const inverted = (Q6_LOW + change) / peak;
    let [sumQQ, sumQX] = [0, 0];
    for (const value of values) {
      const code = nearest(value * inverted, Q6_LOW, Q6_HIGH);
      sumQQ += code * code;
      sumQX += code * value;
    }
    // What least squares takes off the error: Σx² − error.
    const gain = sumQQ > 0 ? (sumQX * sumQX) / sumQQ : 0;
    if (gain > best.gain) best = { scale: sumQX / sumQQ, gain };
  }
  return best.scale;
}
