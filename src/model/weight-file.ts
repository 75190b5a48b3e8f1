/** Weights that stand open in some format, ready to fill the parameters of their model. */

import type { ParameterSet } from "./parameters.ts";

export interface WeightFile {
  /** The matrices that stay in bf16 in memory; all other parameters take the type of their scope. */
  readonly narrow: ReadonlySet<string>;
  /** Fills every parameter. */
  fill(parameters: ParameterSet): Promise<void>;
  close(): Promise<void>;
}

/** The parameters of which every stored tensor is narrow. */
export function narrowParameters(tensors: Iterable<{ parameter: string; isNarrow: boolean }>): Set<string> {
  const narrow = new Set<string>();
  const others = new Set<string>();
  for (const { parameter, isNarrow } of tensors) (isNarrow ? narrow : others).add(parameter);
  return new Set([...narrow].filter((name) => !others.has(name)));
}
