/** What the conformance ring runs: kernels × shapes × values, each with the differences that it allows. */

import type { Rng } from "../../src/core/index.ts";
import {
  createReferenceBackend,
  type KernelName,
  type KernelNumbers,
  type KernelOperands,
} from "../../src/kernels/index.ts";
import { f64, runKernel, uniform, type Alias, type Field, type Fields } from "../helpers/kernel-calls.ts";
import { bound, type Bound, type Family } from "./tolerances.ts";

export type Results<K extends KernelName> = Record<keyof KernelOperands<K>, Float64Array>;

export interface Case<K extends KernelName> {
  readonly title: string;
  readonly fields: Fields<K>;
  readonly numbers: KernelNumbers<K>;
  readonly alias?: Readonly<Record<string, Alias>>;
  /** Operands without a bound must agree in every bit, read ones too. */
  readonly bounds?: (want: Results<K>) => { readonly [O in keyof KernelOperands<K>]?: Bound };
}

export type Cases<K extends KernelName> = (rng: Rng) => Iterable<Case<K>>;

/** Around the edges of vectors of 4, 8 and 16 and of tiles of 32, 64 and 128. */
export const LENGTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 130];
/** Enough elements for several chunks of work. */
export const MANY = 50_001;

export const reference = createReferenceBackend();

/** The operands as float64, without their signs. */
export function absolute<K extends KernelName>(fields: Fields<K>): Fields<K> {
  const entries = Object.entries(fields as Record<string, Field | undefined>);
  return Object.fromEntries(
    entries.map(([key, field]) => [
      key,
      field === undefined || field.dtype === "i32" ? field : f64(new Float64Array(field.values).map(Math.abs)),
    ]),
  ) as Fields<K>;
}

/** Bounds for a kernel that is linear in its values: the magnitude is what it makes of absolute values. */
export function linear<K extends KernelName>(
  kernel: K,
  test: Case<K>,
  output: keyof KernelOperands<K>,
  { family, terms }: { family: Family; terms: number },
): Case<K> {
  const magnitude = (): Float64Array =>
    runKernel(reference, kernel, absolute<K>(test.fields), test.numbers, test.alias)[output];
  return {
    ...test,
    bounds: () => ({ [output]: bound(family, magnitude(), { terms }) }) as { [O in keyof KernelOperands<K>]?: Bound },
  };
}

/** Uniform numbers with NaN, infinities, a denormal, −0 and a large number among them. */
export function special(rng: Rng, length: number): Float64Array {
  const values = uniform(rng, length);
  for (const value of [NaN, Infinity, -Infinity, 1e-40, -0, 1e30]) values[rng.nextUint32() % length] = value;
  return values;
}

/** Integers in [0, limit). */
export const indices = (rng: Rng, length: number, limit: number): number[] =>
  Array.from({ length }, () => rng.nextUint32() % limit);

export const maxAbs = (values: ArrayLike<number>): number =>
  Array.from(values).reduce((max, value) => Math.max(max, Math.abs(value)), 0);

/** Where runs of these lengths start, and where the last one ends. */
export function startsOf(lengths: readonly number[]): number[] {
  const starts = [0];
  for (const length of lengths) starts.push(starts.at(-1)! + length);
  return starts;
}
