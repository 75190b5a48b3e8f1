/**
 * How far a kernel may be from the reference, in one table. The reference rounds once, on store; a kernel in f32 rounds
 * at every operation. A result is allowed
 *
 * `(roundings + growth · √terms + exponent) · 2⁻²⁴ · magnitude + floor · terms`
 *
 * where `magnitude` is the sum of the absolute values of the terms that make up the result. Each operation on the way of
 * a term adds one rounding of 2⁻²⁴; a sum of many terms grows like λ√terms with probability 1 − 2·exp(−λ²/2).
 * Source: Higham & Mary 2019, "A new approach to probabilistic rounding error analysis", theorem 2.4.
 */

const F32_ROUNDOFF = 2 ** -24;
/** Half the distance of bf16 numbers around 1. */
export const BF16_ROUNDOFF = 2 ** -9;

const SUM_GROWTH = 5;
/** The distance of numbers below the normal range: what an operation rounds there. */
const UNDERFLOW = 2 ** -149;
/** Exponentials below the normal range, and what bf16 hardware takes for zero, times factors of at most 2⁶. */
const FLUSHED = 2 ** -120;

interface Tolerance {
  readonly roundings: number;
  readonly growth: number;
  readonly floor: number;
}

const TOLERANCES = {
  /** A handful of products and sums per term. */
  arithmetic: { roundings: 6, growth: SUM_GROWTH, floor: UNDERFLOW },
  /** Float64 inside; the store and the rounding of `scale` to f32 remain. */
  float64Sum: { roundings: 3, growth: 0, floor: UNDERFLOW },
  /** sin, cos and log of two libraries in float64 differ in the last place, which can move the store by one f32. */
  float64Function: { roundings: 2, growth: 0, floor: UNDERFLOW },
  matmulF32: { roundings: 3, growth: SUM_GROWTH, floor: UNDERFLOW },
  /** Products of two bf16 are exact in f32, so only the sums round; denormal factors and results count as zero. */
  matmulBf16: { roundings: 3, growth: SUM_GROWTH, floor: FLUSHED },
  /** An exponential is right to 2 ulp = 4 roundings; a division and up to ten products follow. */
  exponential: { roundings: 16, growth: SUM_GROWTH, floor: FLUSHED },
  /** A mean of squares, a root, a division and three products; the cube of rstd in the backward pass. */
  norm: { roundings: 12, growth: SUM_GROWTH, floor: UNDERFLOW },
  /** Six products, a root and two divisions; numbers such as 1 − β come rounded to f32. */
  optimizer: { roundings: 16, growth: 0, floor: 8 * UNDERFLOW },
} as const satisfies Record<string, Tolerance>;

export type Family = keyof typeof TOLERANCES;

/** The largest allowed difference of element i. */
export type Bound = (i: number) => number;

export interface Growth {
  /** How many terms a result sums. */
  readonly terms?: number;
  /** How large the argument of an exponential is: rounding an argument x moves e^x by 2⁻²⁴ · |x|. */
  readonly exponent?: number;
}

/** @param magnitude - of every element, or one that none exceeds. */
export function bound(family: Family, magnitude: ArrayLike<number> | number, growth: Growth = {}): Bound {
  const factor = relative(family, growth);
  const floor = TOLERANCES[family].floor * (growth.terms ?? 1);
  return (i) => factor * Math.abs(typeof magnitude === "number" ? magnitude : magnitude[i]!) + floor;
}

/** The allowed error of a result of magnitude 1. */
export function relative(family: Family, { terms = 1, exponent = 0 }: Growth = {}): number {
  const { roundings, growth } = TOLERANCES[family];
  return (roundings + growth * Math.sqrt(terms) + exponent) * F32_ROUNDOFF;
}
