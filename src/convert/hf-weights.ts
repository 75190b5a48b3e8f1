/** Parameters in the tensors of a Hugging Face folder, experts one by one or fused. */

import { checkpointNames, fusedExperts, type Blueprint, type CheckpointTensor } from "../blueprint/index.ts";
import type { OpenTensors, StoredTensor } from "../formats/index.ts";
import { storedRows } from "./stored-rows.ts";
import { sliceRows, stackRows, type WeightRows } from "./weight-rows.ts";
import { lookUp, type ModelWeights } from "./model-weights.ts";

export function hfWeights(open: OpenTensors<StoredTensor>, blueprint: Blueprint): ModelWeights["of"] {
  const fused = new Map(
    fusedExperts(blueprint).flatMap((tensor) =>
      open.tensors.has(tensor.name) ? tensor.parameters.map((name, i) => [name, { tensor, i }] as const) : [],
    ),
  );
  const places = new Map<string, CheckpointTensor[]>();
  for (const entry of checkpointNames(blueprint)) {
    const before = places.get(entry.parameter);
    if (before === undefined) places.set(entry.parameter, [entry]);
    else before.push(entry);
  }
  const separate = lookUp(places, (entries) => stackRows(entries.map(({ name }) => storedRows(open, name))));
  return (parameter) => {
    const found = fused.get(parameter);
    return found === undefined ? separate(parameter) : fusedPart(storedRows(open, found.tensor.name), found);
  };
}

/** Of each expert the part of one matrix: `[gate ; up]` of each lie one below the other. */
function fusedPart(
  whole: WeightRows,
  { tensor, i }: { tensor: { shape: readonly number[]; parameters: readonly string[] }; i: number },
): WeightRows {
  const [experts = 0, rows = 0] = tensor.shape;
  const own = rows / tensor.parameters.length;
  return stackRows(Array.from({ length: experts }, (_, e) => sliceRows(whole, e * rows + i * own, own)));
}
