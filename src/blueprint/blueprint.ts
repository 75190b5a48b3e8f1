/**
 * The blueprint: a tree of modules in which every parameter of a model stands once. Allocation, counts, checkpoints,
 * optimizer and sharding read it; nothing here holds a weight, so describing 671B parameters costs no memory.
 *
 * Parameters have the names of DeepSeek's model.py without the ending `.weight`. Matrices are [out, in]; the routed
 * experts of a layer are stacked. MTP layers follow the main ones as layers.{nLayers + k}.
 */

import type { ModelConfig } from "../config/index.ts";
import { groupedQueryAttention, latentAttention } from "./attention.ts";
import { compressedAttention, hyperConnection, hyperConnectionHead } from "./compressed-attention.ts";
import { encoder } from "./encoder.ts";
import { mixtureOfExperts, swiglu } from "./feed-forward.ts";
import { COLUMN, matrix, norm, parametersOf, type Module, type ParameterSpec } from "./parameter.ts";
import { projector, visionTower } from "./vision.ts";

export interface Blueprint {
  readonly model: ModelConfig;
  readonly root: Module;
  /** All parameters of the tree. */
  readonly parameters: readonly ParameterSpec[];
}

/** The parameters of a model, exactly: what is allocated, saved, counted and sharded. */
export function blueprint(model: ModelConfig): Blueprint {
  const root = model.architecture === "encoder" ? encoder(model) : decoder(model);
  return { model, root, parameters: parametersOf(root) };
}

function decoder(model: ModelConfig): Module {
  const layers = Array.from({ length: model.nLayers }, (_, n) => decoderLayer(model, n));
  const mtp = Array.from({ length: model.nMtpLayers }, (_, k) => mtpLayer(model, model.nLayers + k));
  const vocabulary = (name: string, group: "embedding" | "head"): ParameterSpec =>
    matrix(model, name, group, [model.vocabSize, model.dim], { shardAxes: COLUMN, storage: "plain" });
  return {
    name: "",
    parameters: [
      vocabulary("embed", "embedding"),
      norm("norm", model.dim),
      ...(model.tieEmbeddings ? [] : [vocabulary("head", "head")]),
      ...(model.hcMult > 1 ? hyperConnectionHead(model, "hc_head") : []),
    ],
    children: [...layers, ...mtp, ...(model.vision === null ? [] : [visionTower(model), projector(model)])],
  };
}

function decoderLayer(model: ModelConfig, n: number): Module {
  const name = `layers.${n}`;
  const connections = ["hc_attn", "hc_ffn"].flatMap((part) => hyperConnection(model, `${name}.${part}`));
  return {
    name,
    parameters: [
      norm(`${name}.attn_norm`, model.dim),
      norm(`${name}.ffn_norm`, model.dim),
      ...(model.hcMult > 1 ? connections : []),
    ],
    children: [attention(model, n, `${name}.attn`), feedForward(model, n, `${name}.ffn`)],
  };
}

function attention(model: ModelConfig, n: number, name: string): Module {
  switch (model.attention) {
    case "mla":
      return latentAttention(model, name);
    case "gqa":
      return groupedQueryAttention(model, name);
    case "csa":
      return compressedAttention(model, name, model.compressRatios[n]!);
    default:
      return model.attention satisfies never;
  }
}

function feedForward(model: ModelConfig, n: number, name: string): Module {
  const { nDenseLayers, nHashLayers } = model;
  if (n < nDenseLayers || model.nRoutedExperts === 0) return swiglu(model, name, "dense_ffn", model.interDim);
  return mixtureOfExperts(model, name, n < nDenseLayers + nHashLayers ? "hash" : "score");
}

/** A decoder layer behind the projection of embedding and hidden state; embedding and head are the main model's. */
function mtpLayer(model: ModelConfig, n: number): Module {
  const layer = decoderLayer(model, n);
  const { dim, hcMult } = model;
  const { name } = layer;
  const end =
    hcMult > 1
      ? [norm(`${name}.norm`, dim), ...hyperConnectionHead(model, `${name}.hc_head`)]
      : [norm(`${name}.shared_head.norm`, dim)];
  return markMtp({
    ...layer,
    parameters: [
      norm(`${name}.enorm`, dim),
      norm(`${name}.hnorm`, dim),
      ...mtpProjection(model, name),
      ...layer.parameters,
      ...end,
    ],
  });
}

/** One matrix over [embedding ; hidden]; with several streams, one for the embedding and one for each stream. */
function mtpProjection(model: ModelConfig, name: string): ParameterSpec[] {
  const { dim } = model;
  if (model.hcMult === 1) return [matrix(model, `${name}.eh_proj`, "mtp", [dim, 2 * dim], { storage: "plain" })];
  return [matrix(model, `${name}.e_proj`, "mtp", [dim, dim]), matrix(model, `${name}.h_proj`, "mtp", [dim, dim])];
}

function markMtp(module: Module): Module {
  return {
    ...module,
    parameters: module.parameters.map((parameter) => ({ ...parameter, mtp: true })),
    children: module.children.map(markMtp),
  };
}
