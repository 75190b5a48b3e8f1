/** Central differences in float64 against the tape. Reference backend only. */

import type { Backend } from "../kernels/index.ts";
import type { Parameter } from "./parameter.ts";
import { Scope } from "./scope.ts";
import { Tape } from "./tape.ts";
import type { Tensor } from "./tensor.ts";

export interface GradientMismatch {
  readonly parameter: string;
  readonly index: number;
  readonly analytic: number;
  readonly numeric: number;
  /** |analytic − numeric| over max(1, |numeric|). */
  readonly error: number;
}

export interface GradientCheckOptions {
  /** h; with f64 arithmetic 1e-5 leaves about 1e-9 of error for functions of moderate curvature. */
  readonly step?: number;
  /** The values of a parameter that are checked; all of them when left out. */
  readonly sample?: (parameter: Parameter) => Iterable<number>;
}

/**
 * The worst disagreement between backward and (f(θ + h) − f(θ − h)) / 2h over the values of all parameters.
 *
 * @param loss builds the roots of backward and returns their sum as a number: it runs under a tape and without one.
 */
export function checkGradients(
  backend: Backend,
  parameters: readonly Parameter[],
  loss: (scope: Scope) => { roots: readonly Tensor[]; value: () => number },
  { step = 1e-5, sample = (parameter) => Array(parameter.value.size).keys() }: GradientCheckOptions = {},
): GradientMismatch {
  using outer = Scope.root(backend, { dtype: "f64" });
  for (const parameter of parameters) {
    parameter.allocateGrad(outer);
    parameter.clearGrad();
  }
  {
    using tape = new Tape();
    using scope = outer.with({ tape });
    tape.backward(scope, loss(scope).roots);
  }
  const valueAt = (): number => {
    using scope = outer.child();
    return loss(scope).value();
  };
  let worst: GradientMismatch = { parameter: "", index: -1, analytic: 0, numeric: 0, error: 0 };
  for (const parameter of parameters) {
    const gradient = parameter.grad === null ? null : doubles(parameter.grad);
    const values = doubles(parameter.value);
    for (const index of sample(parameter)) {
      const value = values[index]!;
      const nudged = (by: number): number => {
        parameter.value.write(Float64Array.of(value + by), index);
        return valueAt();
      };
      const numeric = (nudged(step) - nudged(-step)) / (2 * step);
      parameter.value.write(Float64Array.of(value), index);
      const analytic = gradient?.[index] ?? 0;
      const error = Math.abs(analytic - numeric) / Math.max(1, Math.abs(numeric));
      if (error >= worst.error) worst = { parameter: parameter.name, index, analytic, numeric, error };
    }
  }
  return worst;
}

function doubles(tensor: Tensor): Float64Array {
  const bytes = tensor.readBytes();
  return new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer);
}
