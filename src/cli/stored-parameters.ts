/** The parameters of a model as a checkpoint of either format holds them, under the names that a folder has for them. */

import {
  checkpointCopies,
  checkpointNames,
  fusedExperts,
  ggufNames,
  isOptionalInGguf,
  type Blueprint,
  type ExpectedTensor,
} from "../blueprint/index.ts";
import { scaledWeights, type StoredTensor } from "../formats/index.ts";

type Tensors = ReadonlyMap<string, StoredTensor>;

export interface StoredParameter {
  /** Of its tensors; several where an expert or a half has another. */
  readonly dtypes: readonly string[];
  /** That of the model where the tensors are whole; `*` experts are its first axis. */
  readonly shape: string;
}

/** A tensor that is due, and the parameters of which it holds values. */
interface Place extends ExpectedTensor {
  readonly parameters: readonly string[];
}

/**
 * Experts are one parameter with `*` for their number, halves of a kv projection one together; tensors of scales and copies
 * are no parameters. A tensor that is not the model's stands under its own name.
 */
export function storedParameters(
  blueprint: Blueprint,
  format: "safetensors" | "gguf",
  tensors: Tensors,
): Map<string, StoredParameter> {
  const places = format === "gguf" ? ggufPlaces(blueprint, tensors) : folderPlaces(blueprint, tensors);
  const byParameter = new Map<string, Place[]>();
  for (const place of places) {
    for (const parameter of place.parameters) {
      const before = byParameter.get(parameter);
      if (before === undefined) byParameter.set(parameter, [place]);
      else before.push(place);
    }
  }
  const names = canonicalNames(blueprint);
  const found = new Map<string, StoredParameter>();
  for (const { name, shape } of blueprint.parameters) {
    const stored = storedAs(byParameter.get(name) ?? [], tensors, shape);
    if (stored !== undefined) found.set(names.get(name)!, stored);
  }
  for (const name of namesBeside(blueprint, places, tensors)) {
    const { dtype, shape } = tensors.get(name)!;
    found.set(name, { dtypes: [dtype], shape: shapeText(shape) });
  }
  return found;
}

function ggufPlaces(blueprint: Blueprint, tensors: Tensors): Place[] {
  return ggufNames(blueprint, { splitKvB: tensors.has("blk.0.attn_k_b.weight") });
}

/** Experts fused where they are so. */
function folderPlaces(blueprint: Blueprint, tensors: Tensors): Place[] {
  const fused = fusedExperts(blueprint).filter(({ name }) => tensors.has(name));
  const replaced = new Set(fused.flatMap(({ parameters }) => parameters));
  const separate = checkpointNames(blueprint).filter(({ parameter }) => !replaced.has(parameter));
  return [...fused, ...separate.map(({ name, shape, parameter }) => ({ name, shape, parameters: [parameter] }))];
}

function canonicalNames(blueprint: Blueprint): Map<string, string> {
  return new Map(
    checkpointNames(blueprint).map(({ name, parameter, expert }) => [
      parameter,
      expert === undefined ? name : name.replace(`.experts.${expert}.`, ".experts.*."),
    ]),
  );
}

function storedAs(places: readonly Place[], tensors: Tensors, shape: readonly number[]): StoredParameter | undefined {
  const held = places.flatMap((place) => {
    const tensor = tensors.get(place.name);
    return tensor === undefined ? [] : [{ tensor, due: place }];
  });
  if (held.length === 0) return undefined;
  const dtypes = [...new Set(held.map(({ tensor }) => tensor.dtype))];
  const other = held.find(({ tensor, due }) => tensor.shape.join() !== due.shape.join());
  const part = held.length < places.length ? ` in ${held.length} of ${places.length} tensors` : "";
  return { dtypes, shape: shapeText(other?.tensor.shape ?? shape) + part };
}

function shapeText(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}

/** Tensors that hold no parameter, nor the scales or a copy of one. */
function namesBeside(blueprint: Blueprint, places: readonly Place[], tensors: Tensors): string[] {
  const known = new Set([...places, ...checkpointCopies(blueprint)].map(({ name }) => name));
  const isScale = (name: string): boolean => scaledWeights(name).some((weight) => known.has(weight));
  return [...tensors.keys()].filter((name) => !known.has(name) && !isScale(name) && !isOptionalInGguf(name));
}
