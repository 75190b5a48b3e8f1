/** The sums of the absolute values of the terms of attention and its gradients: what their rounding errors scale with. */

import type { KernelNumbers } from "../../src/kernels/index.ts";
import type { Fields } from "../helpers/kernel-calls.ts";

/** Each in the layout of its operand. */
export interface Magnitudes {
  readonly out: Float64Array;
  readonly delta: Float64Array;
  readonly dq: Float64Array;
  readonly dk1: Float64Array;
  readonly dk2: Float64Array;
  readonly dv: Float64Array;
}

/** Values stand in the matrix of k1, right behind the keys of their head. Without dOut only `out` has a meaning. */
export function attentionMagnitudes(
  fields: Pick<Fields<"attention">, "q" | "k1" | "k2" | "seqStarts">,
  lse: Float64Array,
  numbers: KernelNumbers<"attention">,
  dOut: Float64Array = new Float64Array(numbers.n * numbers.heads * numbers.valueDim),
): Magnitudes {
  const { n, heads, kvHeads, nopeDim, ropeDim, valueDim, qStride, k1Row, k1Head, k2Row, k2Head, scale } = numbers;
  const [q, k1, k2] = [fields.q.values, fields.k1.values, fields.k2?.values ?? []];
  const starts = Array.from(fields.seqStarts.values);
  const sums = {
    ...{ out: new Float64Array(dOut.length), delta: new Float64Array(n * heads), dq: new Float64Array(q.length) },
    ...{ dk1: new Float64Array(k1.length), dk2: new Float64Array(k2.length), dv: new Float64Array(k1.length) },
  };
  const places = (i: number, h: number, j: number): { row: number; qAt: number; k1At: number; k2At: number } => ({
    row: i * heads + h,
    qAt: i * qStride + h * (nopeDim + ropeDim),
    k1At: j * k1Row + Math.floor((h * kvHeads) / heads) * k1Head,
    k2At: j * k2Row + h * k2Head,
  });
  const weight = (i: number, h: number, j: number): number => {
    const { row, qAt, k1At, k2At } = places(i, h, j);
    let dot = 0;
    for (let c = 0; c < nopeDim; c++) dot += q[qAt + c]! * k1[k1At + c]!;
    for (let c = 0; c < ropeDim; c++) dot += q[qAt + nopeDim + c]! * k2[k2At + c]!;
    return Math.exp(scale * dot - lse[row]!);
  };
  /** Adds what a pair gives to out and dv, and returns Σ |dOut| · |v|. */
  const addValue = (i: number, h: number, j: number, p: number): number => {
    const { row, k1At } = places(i, h, j);
    let total = 0;
    for (let c = 0; c < valueDim; c++) {
      const v = Math.abs(k1[k1At + nopeDim + c]!);
      const gradient = Math.abs(dOut[row * valueDim + c]!);
      sums.out[row * valueDim + c]! += p * v;
      sums.dv[k1At + c]! += p * gradient;
      total += v * gradient;
    }
    return total;
  };
  const addKey = (i: number, h: number, j: number, ds: number): void => {
    const { qAt, k1At, k2At } = places(i, h, j);
    for (let c = 0; c < nopeDim; c++) {
      sums.dq[qAt + c]! += ds * Math.abs(k1[k1At + c]!);
      sums.dk1[k1At + c]! += ds * Math.abs(q[qAt + c]!);
    }
    for (let c = 0; c < ropeDim; c++) {
      sums.dq[qAt + nopeDim + c]! += ds * Math.abs(k2[k2At + c]!);
      sums.dk2[k2At + c]! += ds * Math.abs(q[qAt + nopeDim + c]!);
    }
  };
  for (let i = 0; i < n; i++) {
    const start = starts.findLast((first) => first <= i)!;
    for (let h = 0; h < heads; h++) {
      const p = Array.from({ length: i + 1 - start }, (_, j) => weight(i, h, start + j));
      const dp = p.map((value, j) => addValue(i, h, start + j, value));
      const delta = dp.reduce((total, value, j) => total + p[j]! * value, 0);
      sums.delta[i * heads + h] = delta;
      // ds = scale · p · (dOut · v − delta), where |delta| is at most the mean of |dOut| · |v|.
      for (const [j, value] of dp.entries()) addKey(i, h, start + j, scale * p[j]! * (value + delta));
    }
  }
  return sums;
}
