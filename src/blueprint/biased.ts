/** Parts with biases, which DeepSeek's decoders have not: for the encoder, the vision tower and its projector. */

import type { ModelConfig } from "../config/index.ts";
import { matrix, vector, type ParameterGroup, type ParameterSpec, type ShardAxes } from "./parameter.ts";

/** A matrix [out, in] and its bias [out]. */
export function linear(
  model: ModelConfig,
  name: string,
  group: ParameterGroup,
  shape: readonly [out: number, input: number],
  shardAxes: ShardAxes = {},
): ParameterSpec[] {
  const bias = vector(`${name}.bias`, group, shape[0], "zeros");
  return [matrix(model, name, group, shape, { shardAxes }), shardAxes.tensor === 0 ? { ...bias, shardAxes } : bias];
}

export function layerNorm(name: string, group: ParameterGroup, width: number): ParameterSpec[] {
  return [vector(name, group, width, "ones"), vector(`${name}.bias`, group, width, "zeros")];
}
