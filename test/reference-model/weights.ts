/** Parameters by their blueprint names, as float64. */

import type { ParameterSet } from "../../src/model/index.ts";
import { valuesOf } from "../helpers/random-model.ts";
import type { Matrix } from "./arrays.ts";

export interface LayerReader {
  matrix(name: string): Matrix;
  vector(name: string): number[];
}

/** Names are looked up behind `prefix`. */
export function readWeights(parameters: ParameterSet, prefix = ""): LayerReader {
  const value = (name: string) => parameters.get(prefix + name).value;
  const read = new Map<string, Matrix>();
  const matrix = (name: string): Matrix => {
    const known = read.get(name) ?? { width: value(name).columns, values: valuesOf(value(name)) };
    read.set(name, known);
    return known;
  };
  return { matrix, vector: (name) => Array.from(valuesOf(value(name))) };
}
