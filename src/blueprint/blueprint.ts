/**
 * The blueprint: a tree of modules in which every parameter of a model stands once. Allocation, counts, checkpoints,
 * optimizer and sharding read it; nothing here holds a weight, so describing 671B parameters costs no memory.
 *
 * Parameters have the names of DeepSeek's model.py without the ending `.weight`. Matrices are [out, in]; the routed
 * experts of a layer are stacked. MTP layers follow the main ones as layers.{nLayers + k}.
 */

import type { ModelConfig } from "../config/index.ts";
import type { Module, ParameterSpec, ParameterGroup, ShardAxes } from "./parameter.ts";

export interface Blueprint {
  readonly model: ModelConfig;
  readonly root: Module;
  /** All parameters of the tree. */
  readonly parameters: readonly ParameterSpec[];
}

const COLUMN: ShardAxes = { tensor: 0 };
const ROW: ShardAxes = { tensor: 1 };

/** The parameters of a model, exactly: what is allocated, saved, counted and sharded. */
export function blueprint(model: ModelConfig): Blueprint {
  const layers = Array.from({ length: model.nLayers }, (_, n) => decoderLayer(model, n));
  const mtp = Array.from({ length: model.nMtpLayers }, (_, k) => mtpLayer(model, model.nLayers + k));
  const vocabulary = [model.vocabSize, model.dim];
  const head = model.tieEmbeddings ? [] : [matrix(model, "head", "head", vocabulary, COLUMN)];
  const root: Module = {
    name: "",
    parameters: [matrix(model, "embed", "embedding", vocabulary, COLUMN), norm("norm", model.dim), ...head],
    children: [...layers, ...mtp],
  };
  return { model, root, parameters: parametersOf(root) };
}

function parametersOf(module: Module): ParameterSpec[] {
  return [...module.parameters, ...module.children.flatMap(parametersOf)];
}

function decoderLayer(model: ModelConfig, n: number): Module {
  const name = `layers.${n}`;
  return {
    name,
    parameters: [norm(`${name}.attn_norm`, model.dim), norm(`${name}.ffn_norm`, model.dim)],
    children: [
      attention(model, `${name}.attn`),
      n < model.nDenseLayers
        ? swiglu(model, `${name}.ffn`, "dense_ffn", model.interDim)
        : mixtureOfExperts(model, `${name}.ffn`),
    ],
  };
}

/** A decoder layer with the projection of [embedding ; hidden] before it; embedding and head are the main model's. */
function mtpLayer(model: ModelConfig, n: number): Module {
  const layer = decoderLayer(model, n);
  const { dim } = model;
  return markMtp({
    ...layer,
    parameters: [
      norm(`${layer.name}.enorm`, dim),
      norm(`${layer.name}.hnorm`, dim),
      matrix(model, `${layer.name}.eh_proj`, "mtp", [dim, 2 * dim], {}),
      ...layer.parameters,
      norm(`${layer.name}.shared_head.norm`, dim),
    ],
  });
}

function markMtp(module: Module): Module {
  return {
    ...module,
    parameters: module.parameters.map((parameter) => ({ ...parameter, mtp: true })),
    children: module.children.map(markMtp),
  };
}

/** Multi-head latent attention; the latents' projections are replicated, the heads are sharded. */
function attention(model: ModelConfig, name: string): Module {
  const { dim, nHeads, qLoraRank, kvLoraRank, qkHeadDim, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = model;
  const weight = (part: string, shape: number[], axes: ShardAxes): ParameterSpec =>
    matrix(model, `${name}.${part}`, "attention", shape, axes);
  const query =
    qLoraRank === 0
      ? [weight("wq", [nHeads * qkHeadDim, dim], COLUMN)]
      : [
          weight("wq_a", [qLoraRank, dim], {}),
          norm(`${name}.q_norm`, qLoraRank),
          weight("wq_b", [nHeads * qkHeadDim, qLoraRank], COLUMN),
        ];
  return {
    name,
    parameters: [
      ...query,
      weight("wkv_a", [kvLoraRank + qkRopeHeadDim, dim], {}),
      norm(`${name}.kv_norm`, kvLoraRank),
      weight("wkv_b", [nHeads * (qkNopeHeadDim + vHeadDim), kvLoraRank], COLUMN),
      weight("wo", [dim, nHeads * vHeadDim], ROW),
    ],
    children: [],
  };
}

/** `w2(silu(w1 x) ⊙ w3 x)` */
function swiglu(model: ModelConfig, name: string, group: "dense_ffn" | "shared_experts", hidden: number): Module {
  return {
    name,
    parameters: [
      matrix(model, `${name}.w1`, group, [hidden, model.dim], COLUMN),
      matrix(model, `${name}.w2`, group, [model.dim, hidden], ROW),
      matrix(model, `${name}.w3`, group, [hidden, model.dim], COLUMN),
    ],
    children: [],
  };
}

function mixtureOfExperts(model: ModelConfig, name: string): Module {
  const { nSharedExperts, moeInterDim } = model;
  const shared =
    nSharedExperts === 0
      ? []
      : [swiglu(model, `${name}.shared_experts`, "shared_experts", nSharedExperts * moeInterDim)];
  return {
    name,
    parameters: gate(model, `${name}.gate`),
    children: [routedExperts(model, `${name}.experts`), ...shared],
  };
}

/** The router's matrix and, with noaux_tc, its selection bias, which no gradient reaches. */
function gate(model: ModelConfig, name: string): ParameterSpec[] {
  const weight = matrix(model, name, "gates", [model.nRoutedExperts, model.dim], {});
  if (model.topkMethod !== "noaux_tc") return [weight];
  const bias: ParameterSpec = {
    ...weight,
    name: `${name}.bias`,
    shape: [model.nRoutedExperts],
    init: { kind: "zeros" },
    kind: "buffer",
    decay: false,
  };
  return [weight, bias];
}

function routedExperts(model: ModelConfig, name: string): Module {
  const { dim, moeInterDim, nRoutedExperts, nActivatedExperts } = model;
  const stack = (part: string, rows: number, columns: number, tensor: number): ParameterSpec => ({
    ...matrix(model, `${name}.${part}`, "routed_experts", [nRoutedExperts, rows, columns], { expert: 0, tensor }),
    activeShare: nActivatedExperts / nRoutedExperts,
  });
  return {
    name,
    parameters: [stack("w1", moeInterDim, dim, 1), stack("w2", dim, moeInterDim, 2), stack("w3", moeInterDim, dim, 1)],
    children: [],
  };
}

function matrix(
  model: ModelConfig,
  name: string,
  group: ParameterGroup,
  shape: readonly number[],
  shardAxes: ShardAxes,
): ParameterSpec {
  return {
    name,
    shape,
    init: { kind: "normal", std: model.initStd },
    kind: "trainable",
    group,
    activeShare: 1,
    decay: true,
    shardAxes,
    mtp: false,
  };
}

function norm(name: string, width: number): ParameterSpec {
  return {
    name,
    shape: [width],
    init: { kind: "ones" },
    kind: "trainable",
    group: "norms",
    activeShare: 1,
    decay: false,
    shardAxes: {},
    mtp: false,
  };
}
