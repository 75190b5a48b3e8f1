/** The parameters of a model as rows, wherever they stand. */

import { invariant } from "../core/errors.ts";
import type { WeightRows } from "./weight-rows.ts";

/** Open weights; ends with `close`. */
export interface ModelWeights {
  /** A parameter of the blueprint by its name; stacked experts are one below the other. */
  of(parameter: string): WeightRows;
  close(): Promise<void>;
}

/** Looks parameters up in a table made once. */
export function lookUp<T>(table: ReadonlyMap<string, T>, rowsOf: (found: T) => WeightRows): ModelWeights["of"] {
  return (parameter) => {
    const found = table.get(parameter);
    invariant(found !== undefined, `the checkpoint has a place for ${parameter}`);
    return rowsOf(found);
  };
}
