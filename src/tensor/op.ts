/**
 * One row per operation: name, shapes, forward, gradient, what is saved for it, cost, source. `apply` runs a row and
 * writes it on the tape.
 */

import type { DType } from "../core/dtype.ts";
import { ShapeError } from "../core/errors.ts";
import { Parameter } from "./parameter.ts";
import type { Scope } from "./scope.ts";
import type { Shape, Tensor } from "./tensor.ts";

export type Input = Tensor | Parameter | null;

export interface Spec {
  readonly shape: Shape;
  /** Activations take the scope's dtype when left out. */
  readonly dtype?: DType;
}

/** The tensors of one call, in the row's order. */
export interface Call<A> {
  readonly scope: Scope;
  readonly inputs: readonly Input[];
  readonly outputs: readonly Tensor[];
  /** What forward computes for the gradient alone (reciprocal deviations, log-sum-exps, plans). */
  readonly extras: readonly Tensor[];
  readonly attrs: A;
}

/** A call seen from behind: gradients of its outputs come in, gradients of its inputs go out. */
export interface BackwardCall<A> extends Call<A> {
  /** Gradient of output i, or null when nothing reached it. */
  grad(output: number): Tensor | null;
  /** Where to write the gradient of input i and whether to add; null when that input needs none. */
  into(input: number): { tensor: Tensor; accumulate: number } | null;
  /** A tensor for kernels that write the gradient of input i whole; scratch when that input needs none. */
  whole(input: number): Tensor;
  /** Hands a finished gradient on to input i as it is. */
  pass(input: number, gradient: Tensor): void;
}

export interface OpRow<A> {
  readonly name: string;
  /** Paper and equation, or repository and file. */
  readonly source: string;
  /** Shapes of the outputs. @throws ShapeError when the inputs do not fit. */
  readonly outputs: (inputs: readonly Input[], attrs: A) => readonly Spec[];
  readonly extras?: (inputs: readonly Input[], attrs: A) => readonly Spec[];
  readonly forward: (call: Call<A>) => void;
  /** Null for operations that only serve inference or carry no gradient. */
  readonly backward: ((call: BackwardCall<A>) => void) | null;
  /** What must live until backward: inputs and outputs by index. Extras always do. */
  readonly saves: { readonly inputs: readonly number[]; readonly outputs: readonly number[] };
  /** Floating point operations of forward and of backward. */
  readonly flops: (inputs: readonly Input[], attrs: A) => { forward: number; backward: number };
}

/** The value behind an input. */
export function valueOf(input: Input | undefined): Tensor {
  if (input === null || input === undefined) throw new ShapeError("operation", "an input that is present", "none");
  return input instanceof Parameter ? input.value : input;
}

/** Runs an operation. Outputs belong to `scope`. */
export function apply<A>(row: OpRow<A>, scope: Scope, inputs: readonly Input[], attrs: A): readonly Tensor[] {
  const make = (spec: Spec): Tensor => scope.empty(spec.shape, spec.dtype ?? scope.dtype, row.name);
  const outputs = row.outputs(inputs, attrs).map(make);
  const extras = (row.extras?.(inputs, attrs) ?? []).map(make);
  const call: Call<A> = { scope, inputs, outputs, extras, attrs };
  if (scope.profiler === null) row.forward(call);
  else scope.profiler.measure(row.name, row.flops(inputs, attrs).forward, () => row.forward(call));
  scope.tape?.record(row, call);
  for (const extra of extras) scope.drop(extra);
  return outputs;
}
