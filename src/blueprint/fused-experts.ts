/**
 * The routed experts of a layer as two tensors, as transformers 5 holds them in memory and some folders on disk:
 * `experts.gate_up_proj` [E, 2m, d] and `experts.down_proj` [E, d, m].
 */

import { FP8_BLOCK } from "../core/index.ts";
import type { StoredTensor } from "../formats/index.ts";
import type { Blueprint } from "./blueprint.ts";
import { namePatterns } from "./checkpoint-names.ts";

export interface FusedTensor {
  /** `model.layers.3.mlp.experts.gate_up_proj` */
  readonly name: string;
  readonly shape: readonly number[];
  /** The parameters whose rows each expert has one below the other. */
  readonly parameters: readonly string[];
}

/** The fused tensors that a folder of this model may hold; none for the names of V4. */
export function fusedExperts(blueprint: Blueprint): FusedTensor[] {
  const shapes = new Map(blueprint.parameters.map(({ name, shape }) => [name, shape]));
  return [...namePatterns(blueprint)].flatMap(([pattern, parameter]): FusedTensor[] => {
    if (pattern.endsWith(".experts.*.gate_proj.weight")) {
      const [experts, rows, columns] = shapes.get(parameter) as [number, number, number];
      const name = pattern.replace("*.gate_proj.weight", "gate_up_proj");
      return [{ name, shape: [experts, 2 * rows, columns], parameters: [parameter, parameter.replace(/w1$/, "w3")] }];
    }
    if (!pattern.endsWith(".experts.*.down_proj.weight")) return [];
    const name = pattern.replace("*.down_proj.weight", "down_proj");
    return [{ name, shape: shapes.get(parameter)!, parameters: [parameter] }];
  });
}

/** The tensors that a folder must hold, with those experts fused that are so in it. */
export function* withFusedExperts<T extends { readonly name: string; readonly parameter: string }>(
  blueprint: Blueprint,
  tensors: Iterable<T>,
  stored: ReadonlyMap<string, StoredTensor>,
): Generator<T | Pick<FusedTensor, "name" | "shape">> {
  const fused = fusedExperts(blueprint).filter(({ name }) => stored.has(name));
  const replaced = new Set(fused.flatMap(({ parameters }) => parameters));
  for (const tensor of tensors) if (!replaced.has(tensor.parameter)) yield tensor;
  for (const tensor of fused) {
    yield tensor;
    if (stored.get(tensor.name)!.dtype === "F8_E4M3") yield scalesOf(tensor);
  }
}

/** In fp8 blocks begin anew at each expert, and one may span gate and up. */
function scalesOf({ name, shape: [experts = 0, ...matrix] }: FusedTensor): Pick<FusedTensor, "name" | "shape"> {
  return { name: `${name}_scale_inv`, shape: [experts, ...matrix.map((n) => Math.ceil(n / FP8_BLOCK))] };
}
