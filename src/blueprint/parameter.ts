/** What the blueprint says about one parameter, the module that holds it, and the makers of the common kinds. */

import { ConfigError } from "../core/errors.ts";
import type { ModelConfig } from "../config/index.ts";

/** The row of a count in which a parameter appears. `mtp` is what only MTP has. */
export const GROUPS = [
  "embedding",
  "head",
  "attention",
  "indexers",
  "compressors",
  "dense_ffn",
  "routed_experts",
  "shared_experts",
  "gates",
  "hyper_connections",
  "norms",
  "vision",
  "projector",
  "mtp",
] as const;

export type ParameterGroup = (typeof GROUPS)[number];

export type Init =
  | { readonly kind: "normal"; readonly std: number }
  | { readonly kind: "ones" }
  | { readonly kind: "zeros" };

/** Axes of the shape along which a parameter can be cut: over tensor-parallel ranks, over expert-parallel ranks. */
export interface ShardAxes {
  readonly tensor?: number;
  readonly expert?: number;
}

/**
 * What the model's `dtype` means for a parameter in a released file: a `matrix` is quantised with it, an `expert` has
 * `expertDtype` where that is set, `plain` stays bf16 beside quantised ones; `f32` and `i64` are so in every file.
 */
export type Storage = "matrix" | "expert" | "plain" | "f32" | "i64";

export interface ParameterSpec {
  /** Dotted name, unique in the model: `layers.3.attn.wkv_a`. */
  readonly name: string;
  readonly shape: readonly number[];
  readonly init: Init;
  /** Trained by gradient; changed by other means (the router's bias); or a fixed table of integers, no parameter. */
  readonly kind: "trainable" | "buffer" | "table";
  readonly group: ParameterGroup;
  /** Share of the elements that one token uses. */
  readonly activeShare: number;
  /** Whether AdamW decays it. */
  readonly decay: boolean;
  readonly shardAxes: ShardAxes;
  /** Whether it belongs to an MTP layer. */
  readonly mtp: boolean;
  readonly storage: Storage;
}

export interface CountedParameter extends ParameterSpec {
  /** For how many equal parameters it stands: its own and those of layers that an outline does not describe; 1. */
  readonly times?: number;
}

export interface Module {
  /** Dotted name; empty for the whole model. */
  readonly name: string;
  readonly parameters: readonly ParameterSpec[];
  readonly children: readonly Module[];
}

/** Cut by rows or by columns over tensor-parallel ranks: the outputs, or the inputs, of a matrix. */
export const COLUMN: ShardAxes = { tensor: 0 };
export const ROW: ShardAxes = { tensor: 1 };

/** A weight [out, in] that starts from the normal distribution. */
export function matrix(
  model: ModelConfig,
  name: string,
  group: ParameterGroup,
  shape: readonly number[],
  options: Partial<Pick<ParameterSpec, "shardAxes" | "storage" | "activeShare">> = {},
): ParameterSpec {
  return {
    name,
    shape,
    init: { kind: "normal", std: model.initStd },
    kind: "trainable",
    group,
    activeShare: 1,
    decay: true,
    shardAxes: {},
    mtp: false,
    storage: "matrix",
    ...options,
  };
}

/** A vector that is not decayed. */
export function vector(
  name: string,
  group: ParameterGroup,
  width: number,
  init: "ones" | "zeros",
  storage: Storage = "plain",
): ParameterSpec {
  return {
    name,
    shape: [width],
    init: { kind: init },
    kind: "trainable",
    group,
    activeShare: 1,
    decay: false,
    shardAxes: {},
    mtp: false,
    storage,
  };
}

/** The weight of an RMSNorm. */
export function norm(name: string, width: number): ParameterSpec {
  return vector(name, "norms", width, "ones");
}

/** All parameters of a module and of those below it. */
export function parametersOf(module: Module): ParameterSpec[] {
  const all: ParameterSpec[] = [];
  const gather = ({ parameters, children }: Module): void => {
    for (const parameter of parameters) all.push(parameter);
    for (const child of children) gather(child);
  };
  gather(module);
  return all;
}

/** The elements of one tensor or of several equal ones. @throws ConfigError where a number no longer holds them exactly. */
export function countElements(shape: readonly number[], tensors = 1): number {
  let product = tensors;
  for (const n of shape) product *= n;
  if (!Number.isSafeInteger(product)) throw beyondExact(`shape [${shape.join(", ")}]`, product);
  return product;
}

/** @throws ConfigError where a number no longer holds the sum exactly. */
export function exactSum(terms: Iterable<number>): number {
  let sum = 0;
  for (const term of terms) sum += term;
  if (!Number.isSafeInteger(sum)) throw beyondExact("count", sum);
  return sum;
}

function beyondExact(place: string, got: number): ConfigError {
  return new ConfigError(place, "must stay below 2^53, up to which every count is exact", got, "choose smaller sizes");
}
