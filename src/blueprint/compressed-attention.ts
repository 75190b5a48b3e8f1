/**
 * The attention of V4: one head that is both key and value, a window of it, and entries that a compressor pools from
 * several tokens; where the ratio is 4 an indexer selects among them. The heads' output is projected in groups.
 *
 * **Source:** DeepSeek-V4 report; deepseek-ai/DeepSeek-V4-Flash inference/model.py.
 */

import type { ModelConfig } from "../config/index.ts";
import {
  COLUMN,
  matrix,
  norm,
  ROW,
  vector,
  type Module,
  type ParameterGroup,
  type ParameterSpec,
} from "./parameter.ts";

/** The ratio whose entries overlap and are selected by an indexer. */
const SELECTED = 4;

export function compressedAttention(model: ModelConfig, name: string, ratio: number): Module {
  const { dim, nHeads, headDim, qLoraRank, oLoraRank, oGroups } = model;
  const weight = (part: string, shape: readonly number[], shardAxes = {}): ParameterSpec =>
    matrix(model, `${name}.${part}`, "attention", shape, { shardAxes });
  return {
    name,
    parameters: [
      weight("wq_a", [qLoraRank, dim]),
      norm(`${name}.q_norm`, qLoraRank),
      weight("wq_b", [nHeads * headDim, qLoraRank], COLUMN),
      weight("wkv", [headDim, dim]),
      norm(`${name}.kv_norm`, headDim),
      weight("wo_a", [oGroups * oLoraRank, (nHeads / oGroups) * headDim], COLUMN),
      weight("wo_b", [dim, oGroups * oLoraRank], ROW),
      vector(`${name}.attn_sink`, "attention", nHeads, "zeros", "f32"),
    ],
    children: [
      ...(ratio === 0 ? [] : [compressor(model, `${name}.compressor`, "compressors", ratio, headDim)]),
      ...(ratio === SELECTED ? [indexer(model, `${name}.indexer`)] : []),
    ],
  };
}

/** Pools `ratio` tokens, or twice as many where windows overlap, by a softmax over learned scores. */
function compressor(model: ModelConfig, name: string, group: ParameterGroup, ratio: number, width: number): Module {
  const columns = ratio === SELECTED ? 2 * width : width;
  const plain = { storage: "plain" } as const;
  return {
    name,
    parameters: [
      matrix(model, `${name}.wkv`, group, [columns, model.dim], plain),
      matrix(model, `${name}.wgate`, group, [columns, model.dim], plain),
      { ...matrix(model, `${name}.ape`, group, [ratio, columns], { storage: "f32" }), decay: false },
      vector(`${name}.norm`, group, width, "ones"),
    ],
    children: [],
  };
}

function indexer(model: ModelConfig, name: string): Module {
  const { dim, qLoraRank, indexNHeads, indexHeadDim } = model;
  return {
    name,
    parameters: [
      matrix(model, `${name}.wq_b`, "indexers", [indexNHeads * indexHeadDim, qLoraRank]),
      matrix(model, `${name}.weights_proj`, "indexers", [indexNHeads, dim], { storage: "plain" }),
    ],
    children: [compressor(model, `${name}.compressor`, "indexers", SELECTED, indexHeadDim)],
  };
}

/**
 * What mixes the residual streams around one part of a layer: into it, out of it, and each with each.
 * @param name - `layers.3.hc_attn`
 */
export function hyperConnection(model: ModelConfig, name: string): ParameterSpec[] {
  const { hcMult } = model;
  return connection(model, name, hcMult * (2 + hcMult), 3);
}

/** What mixes the streams into the one that the final norm reads. */
export function hyperConnectionHead(model: ModelConfig, name: string): ParameterSpec[] {
  return connection(model, name, model.hcMult, 1);
}

function connection(model: ModelConfig, name: string, gates: number, scales: number): ParameterSpec[] {
  const group = "hyper_connections";
  return [
    matrix(model, `${name}_fn`, group, [gates, model.hcMult * model.dim], { storage: "f32" }),
    vector(`${name}_base`, group, gates, "zeros", "f32"),
    vector(`${name}_scale`, group, scales, "ones", "f32"),
  ];
}
