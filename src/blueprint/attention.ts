/** The attention of V2 and V3 (latent), of LLaMA and DeepSeekMoE (grouped queries), and the lightning indexer. */

import type { ModelConfig } from "../config/index.ts";
import { COLUMN, matrix, norm, ROW, vector, type Module, type ParameterSpec, type ShardAxes } from "./parameter.ts";

/** Multi-head latent attention; the latents' projections are replicated, the heads are sharded. */
export function latentAttention(model: ModelConfig, name: string): Module {
  const { dim, nHeads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = model;
  const weight = weights(model, name);
  return {
    name,
    parameters: [
      ...queries(model, name),
      weight("wkv_a", [kvLoraRank + qkRopeHeadDim, dim], {}),
      norm(`${name}.kv_norm`, kvLoraRank),
      weight("wkv_b", [nHeads * (qkNopeHeadDim + vHeadDim), kvLoraRank], COLUMN),
      weight("wo", [dim, nHeads * vHeadDim], ROW),
    ],
    children: model.indexNHeads === 0 ? [] : [indexer(model, `${name}.indexer`)],
  };
}

function queries(model: ModelConfig, name: string): ParameterSpec[] {
  const { dim, nHeads, qLoraRank, qkHeadDim } = model;
  const weight = weights(model, name);
  if (qLoraRank === 0) return [weight("wq", [nHeads * qkHeadDim, dim], COLUMN)];
  return [
    weight("wq_a", [qLoraRank, dim], {}),
    norm(`${name}.q_norm`, qLoraRank),
    weight("wq_b", [nHeads * qkHeadDim, qLoraRank], COLUMN),
  ];
}

/** `nHeads` queries over `nKvHeads` keys and values; all of them are full multi-head attention. */
export function groupedQueryAttention(model: ModelConfig, name: string): Module {
  const { dim, nHeads, nKvHeads, headDim } = model;
  const weight = weights(model, name);
  return {
    name,
    parameters: [
      weight("wq", [nHeads * headDim, dim], COLUMN),
      weight("wk", [nKvHeads * headDim, dim], COLUMN),
      weight("wv", [nKvHeads * headDim, dim], COLUMN),
      weight("wo", [dim, nHeads * headDim], ROW),
    ],
    children: [],
  };
}

/**
 * The indexer of V3.2: queries from the query latent, one key per token under a LayerNorm, a weight for each head.
 * **Source:** deepseek-ai/DeepSeek-V3.2-Exp inference/model.py, Indexer.
 */
function indexer(model: ModelConfig, name: string): Module {
  const { dim, qLoraRank, indexNHeads, indexHeadDim } = model;
  return {
    name,
    parameters: [
      matrix(model, `${name}.wq_b`, "indexers", [indexNHeads * indexHeadDim, qLoraRank]),
      matrix(model, `${name}.wk`, "indexers", [indexHeadDim, dim]),
      vector(`${name}.k_norm`, "indexers", indexHeadDim, "ones", "f32"),
      vector(`${name}.k_norm.bias`, "indexers", indexHeadDim, "zeros", "f32"),
      matrix(model, `${name}.weights_proj`, "indexers", [indexNHeads, dim], { storage: "plain" }),
    ],
    children: [],
  };
}

function weights(
  model: ModelConfig,
  name: string,
): (part: string, shape: readonly number[], shardAxes: ShardAxes) => ParameterSpec {
  return (part, shape, shardAxes) => matrix(model, `${name}.${part}`, "attention", shape, { shardAxes });
}
