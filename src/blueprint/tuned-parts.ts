/** What LoRA, DoRA and adapters add to a model, for any set of its modules. */

import { ConfigError, nearest } from "../core/errors.ts";
import type { Blueprint } from "./blueprint.ts";
import { checkpointNames } from "./checkpoint-names.ts";
import { adapter, countTerms, dora, lora } from "./formulas.ts";
import { exactSum, type ParameterSpec } from "./parameter.ts";

export interface AddedCount {
  /** Parameters that are trained. */
  readonly total: number;
  /** Matrices, or places, that carry an addition; each expert is one. */
  readonly modules: number;
}

/**
 * The matrices of the main model that some names mean.
 *
 * @param names - groups of the counts (`attention`), parts of the blueprint (`wq_a`), or modules of the checkpoint
 * (`q_a_proj`).
 * @throws ConfigError when a name matches no matrix.
 */
export function findMatrices(blueprint: Blueprint, names: readonly string[]): ParameterSpec[] {
  const matrices = blueprint.parameters.filter(
    ({ shape, mtp, kind, group }) => shape.length > 1 && !mtp && kind === "trainable" && group !== "vision",
  );
  const modules = moduleNames(blueprint);
  const namesOf = (spec: ParameterSpec): string[] => [
    spec.group,
    spec.name.split(".").at(-1)!,
    modules.get(spec.name)!,
  ];
  const known = new Set(matrices.flatMap(namesOf));
  for (const name of names) {
    if (known.has(name)) continue;
    const near = nearest(name, known);
    const cure = near === undefined ? `choose among ${[...known].join(", ")}` : `did you mean ${near}?`;
    throw new ConfigError("on", "must match a matrix of the model", name, cure);
  }
  return matrices.filter((spec) => namesOf(spec).some((name) => names.includes(name)));
}

/** The module of each parameter in its checkpoint: `q_a_proj` of `…self_attn.q_a_proj.weight`. */
function moduleNames(blueprint: Blueprint): Map<string, string> {
  const tensors = checkpointNames({ ...blueprint, parameters: blueprint.parameters.map(firstExpert) });
  return new Map(tensors.map(({ name, parameter }) => [parameter, name.split(".").at(-2) ?? name]));
}

function firstExpert(spec: ParameterSpec): ParameterSpec {
  return spec.group === "routed_experts" ? { ...spec, shape: [1, ...spec.shape.slice(1)] } : spec;
}

/** LoRA or DoRA of one rank on a set of matrices. */
export function countLowRank(
  matrices: readonly ParameterSpec[],
  { rank, kind }: { rank: number; kind: "lora" | "dora" },
): AddedCount {
  const formula = kind === "lora" ? lora : dora;
  const experts = ({ shape }: ParameterSpec): number => (shape.length === 3 ? shape[0]! : 1);
  return {
    total: exactSum(
      matrices.map((spec) => {
        const [out = 0, inputs = 0] = spec.shape.slice(-2);
        return countTerms(formula({ in: inputs, out, rank })).total * experts(spec);
      }),
    ),
    modules: exactSum(matrices.map(experts)),
  };
}

/** Two adapters in each layer: behind attention and behind the feed-forward part. **Source:** Houlsby et al. 2019. */
export function countAdapters(
  { model }: Blueprint,
  { bottleneck, bias }: { bottleneck: number; bias: boolean },
): AddedCount {
  const modules = 2 * model.nLayers;
  const one = countTerms(adapter({ dim: model.dim, bottleneck, bias })).total;
  return { total: exactSum([one * modules]), modules };
}
