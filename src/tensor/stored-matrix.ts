/** A weight that is read in the type in which it is stored, and what a kernel is told about any weight. */

import type { Operand } from "../kernels/index.ts";
import type { Input } from "./op.ts";
import { Parameter } from "./parameter.ts";
import type { Compute } from "./scope.ts";
import type { Shape, Tensor } from "./tensor.ts";

/** A scale for each block of `rows` × `cols` elements of the whole matrix; see the kernel contract. */
export interface StoredScale {
  readonly values: Operand;
  readonly rows: number;
  readonly cols: number;
}

/**
 * A matrix `[out, in]`, or one for each expert `[E, out, in]`, of any stored type. It carries no gradient; who makes it
 * keeps its memory alive.
 */
export class StoredMatrix {
  readonly name: string;
  readonly shape: Shape;
  readonly weight: Operand;
  readonly scale: StoredScale | null;
  /** The operands hold a handle for each expert in place of the values. */
  readonly isList: boolean;

  constructor(
    name: string,
    shape: Shape,
    { weight, scale = null, isList = false }: { weight: Operand; scale?: StoredScale | null; isList?: boolean },
  ) {
    this.name = name;
    this.shape = shape;
    this.weight = weight;
    this.scale = scale;
    this.isList = isList;
  }
}

export type Weight = Parameter | StoredMatrix;

/** A weight among the inputs of an operation: one that is stored has no gradient, so the tape does not see it. */
export function inputOf(weight: Weight): Input {
  return weight instanceof Parameter ? weight : null;
}

/** What a product reads: the bf16 copy when it rounds to bf16 and there is one, else the values themselves. */
function weightFor(weight: Parameter, compute: Compute): Tensor {
  return compute !== "f32" && weight.copy !== null ? weight.copy : weight.value;
}

/** How a kernel reads a weight: its operand, its scales and the numbers that go with them. */
export interface WeightOperands {
  readonly weight: Operand;
  readonly scale: Operand | undefined;
  readonly numbers: { readonly scaleRows: number; readonly scaleCols: number };
}

export function weightOperands(weight: Weight, compute: Compute): WeightOperands {
  if (weight instanceof Parameter) {
    return { weight: weightFor(weight, compute), scale: undefined, numbers: { scaleRows: 0, scaleCols: 0 } };
  }
  const { scale } = weight;
  const numbers = { scaleRows: scale?.rows ?? 0, scaleCols: scale?.cols ?? 0 };
  return { weight: weight.weight, scale: scale?.values, numbers };
}
