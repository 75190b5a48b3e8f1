/** The feed-forward part of a layer: one SwiGLU, or a router with its experts. */

import type { ModelConfig } from "../config/index.ts";
import { COLUMN, matrix, ROW, vector, type Module, type ParameterSpec } from "./parameter.ts";

/** `w2(silu(w1 x) ⊙ w3 x)` */
export function swiglu(
  model: ModelConfig,
  name: string,
  group: "dense_ffn" | "shared_experts",
  hidden: number,
): Module {
  return {
    name,
    parameters: [
      matrix(model, `${name}.w1`, group, [hidden, model.dim], { shardAxes: COLUMN }),
      matrix(model, `${name}.w2`, group, [model.dim, hidden], { shardAxes: ROW }),
      matrix(model, `${name}.w3`, group, [hidden, model.dim], { shardAxes: COLUMN }),
    ],
    children: [],
  };
}

/** @param routing - by score, or by a table from token ids to experts. */
export function mixtureOfExperts(model: ModelConfig, name: string, routing: "score" | "hash"): Module {
  const { nSharedExperts, moeInterDim } = model;
  const shared =
    nSharedExperts === 0
      ? []
      : [swiglu(model, `${name}.shared_experts`, "shared_experts", nSharedExperts * moeInterDim)];
  return {
    name,
    parameters: gate(model, `${name}.gate`, routing),
    children: [routedExperts(model, `${name}.experts`), ...shared],
  };
}

/** The router's matrix with what selects beside it: a bias that no gradient reaches (noaux_tc), or the table. */
function gate(model: ModelConfig, name: string, routing: "score" | "hash"): ParameterSpec[] {
  const weight = matrix(model, name, "gates", [model.nRoutedExperts, model.dim], { storage: "plain" });
  if (routing === "hash") {
    const shape = [model.vocabSize, model.nActivatedExperts];
    return [weight, { ...weight, name: `${name}.tid2eid`, shape, kind: "table", decay: false, storage: "i64" }];
  }
  if (model.topkMethod !== "noaux_tc") return [weight];
  return [weight, { ...vector(`${name}.bias`, "gates", model.nRoutedExperts, "zeros", "f32"), kind: "buffer" }];
}

function routedExperts(model: ModelConfig, name: string): Module {
  const { dim, moeInterDim, nRoutedExperts, nActivatedExperts } = model;
  const stack = (part: string, rows: number, columns: number, tensor: number): ParameterSpec =>
    matrix(model, `${name}.${part}`, "routed_experts", [nRoutedExperts, rows, columns], {
      shardAxes: { expert: 0, tensor },
      activeShare: nActivatedExperts / nRoutedExperts,
      storage: "expert",
    });
  return {
    name,
    parameters: [stack("w1", moeInterDim, dim, 1), stack("w2", dim, moeInterDim, 2), stack("w3", moeInterDim, dim, 1)],
    children: [],
  };
}
