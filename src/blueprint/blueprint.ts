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
import {
  COLUMN,
  matrix,
  norm,
  parametersOf,
  type CountedParameter,
  type Module,
  type ParameterSpec,
} from "./parameter.ts";
import { projector, visionTower } from "./vision.ts";

export interface Blueprint {
  readonly model: ModelConfig;
  readonly root: Module;
  /** All parameters of the tree. */
  readonly parameters: readonly ParameterSpec[];
}

/** The parameters of a model, exactly: what is allocated, saved, counted and sharded. */
export function blueprint(model: ModelConfig): Blueprint {
  const root = describe(model, layerNumbers(model));
  return { model, root, parameters: parametersOf(root) };
}

/** What is counted: a blueprint, or an outline, whose parameters say how many they stand for. */
export interface Counted {
  readonly model: ModelConfig;
  readonly parameters: readonly CountedParameter[];
}

/**
 * A model with one layer of each kind in place of all that are equal, the first of them. It is no blueprint: what names
 * or allocates every parameter does not take it.
 */
export interface Outline extends Counted {
  /** In the order of their numbers. */
  readonly layers: readonly Module[];
  /** What stands outside the layers. */
  readonly rest: Module;
}

/** The outline of a model, for counting and planning. */
export function outline(model: ModelConfig): Outline {
  const times = new Map<number, number>();
  for (const n of layerSamples(model)) times.set(n, (times.get(n) ?? 0) + 1);
  const { children, ...top } = describe(model, [...times.keys()]);
  const [layers, others] = [children.slice(0, times.size), children.slice(times.size)];
  const counts = [...times.values()];
  const inLayers = layers.flatMap((layer, i) => parametersOf(layer).map((one) => ({ ...one, times: counts[i]! })));
  const parameters = [...top.parameters, ...inLayers, ...others.flatMap(parametersOf)];
  return { model, layers, rest: { ...top, children: others }, parameters };
}

function describe(model: ModelConfig, layers: readonly number[]): Module {
  return model.architecture === "encoder" ? encoder(model, layers) : decoder(model, layers);
}

/** MTP layers follow the main ones. */
function layerNumbers({ architecture, nLayers, nMtpLayers }: ModelConfig): number[] {
  return Array.from({ length: nLayers + (architecture === "encoder" ? 0 : nMtpLayers) }, (_, n) => n);
}

/** For each layer the first one that is made like it: but for the number in their names they are equal. */
export function layerSamples(model: ModelConfig): number[] {
  const { nLayers, attention: kind, compressRatios } = model;
  const first = new Map<string, number>();
  return layerNumbers(model).map((n) => {
    const make = [n < nLayers, feedForwardKind(model, n), kind === "csa" ? compressRatios[n] : 0].join();
    if (!first.has(make)) first.set(make, n);
    return first.get(make)!;
  });
}

function decoder(model: ModelConfig, numbers: readonly number[]): Module {
  const layers = numbers.map((n) => (n < model.nLayers ? decoderLayer(model, n) : mtpLayer(model, n)));
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
    children: [...layers, ...(model.vision === null ? [] : [visionTower(model), projector(model)])],
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
  const kind = feedForwardKind(model, n);
  if (kind === "dense") return swiglu(model, name, "dense_ffn", model.interDim);
  return mixtureOfExperts(model, name, kind);
}

/** Dense, or experts that are routed by a hash of the token or by score. */
function feedForwardKind({ nDenseLayers, nHashLayers, nRoutedExperts }: ModelConfig, n: number) {
  if (n < nDenseLayers || nRoutedExperts === 0) return "dense";
  return n < nDenseLayers + nHashLayers ? "hash" : "score";
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
  const parameters = [
    norm(`${name}.enorm`, dim),
    norm(`${name}.hnorm`, dim),
    ...mtpProjection(model, name),
    ...layer.parameters,
    ...end,
  ];
  return markMtp({ ...layer, parameters });
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
