/** Arithmetic on plain arrays of float64. A vector is an array; a matrix is a function from row number to vector. */

export type Vector = readonly number[];

/** Rows of `width` values that lie one after another. */
export interface Matrix {
  readonly width: number;
  readonly values: Float64Array;
}

export function rowOf({ values, width }: Matrix, row: number): number[] {
  return Array.from(values.subarray(row * width, (row + 1) * width));
}

export function dot(a: Vector, b: Vector): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0);
}

export function plus(a: Vector, b: Vector): number[] {
  return a.map((value, i) => value + b[i]!);
}

export function times(factor: number, a: Vector): number[] {
  return a.map((value) => factor * value);
}

/** W x for the `count` rows of W from row `first`. */
export function multiply(w: Matrix, x: Vector, first = 0, count = w.values.length / w.width): number[] {
  return Array.from({ length: count }, (_, i) => multiplyRow(w, first + i, x));
}

function multiplyRow({ values, width }: Matrix, row: number, x: Vector): number {
  let sum = 0;
  for (let i = 0; i < width; i++) sum += values[row * width + i]! * x[i]!;
  return sum;
}

/** x · w / √(mean x² + ε) */
export function rmsNorm(x: Vector, weight: Vector, eps: number): number[] {
  const scale = 1 / Math.sqrt(dot(x, x) / x.length + eps);
  return x.map((value, i) => value * scale * weight[i]!);
}

export function softmax(x: Vector): number[] {
  const largest = Math.max(...x);
  const powers = x.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** Indices of the `count` largest values, falling; ties to the lower index. */
export function topIndices(values: Vector, count: number): number[] {
  const order = values.map((_, i) => i).toSorted((a, b) => values[b]! - values[a]! || a - b);
  return order.slice(0, count);
}
