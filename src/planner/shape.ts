/**
 * What planning reads from a blueprint: layers of the same kind together, with the dims that activations and work
 * follow and the parameters that are sharded. A shape can also be written by hand, for a model without blueprint.
 */

import type { Module, ParameterSpec } from "../blueprint/index.ts";
import { countElements, layerSamples, outline, parametersOf } from "../blueprint/index.ts";
import type { ModelConfig } from "../config/index.ts";
import { invariant, UnsupportedError } from "../core/errors.ts";
import type { LayoutModel } from "./layout.ts";

export interface PlanParameter {
  readonly name: string;
  readonly elements: number;
  /** Cut over the tensor-parallel ranks (of the expert, for experts); else each of them holds it whole. */
  readonly tensor: boolean;
  /** Stacked over the routed experts. */
  readonly expert: boolean;
  /** `frozen` takes no gradient (the base below adapters); `buffer` is float32 and changed by other means. */
  readonly kind: "trainable" | "frozen" | "buffer";
  /** Share of the elements that one token uses. */
  readonly activeShare: number;
  /** Rows and columns of a matrix (of one expert), for adapters; undefined for vectors. */
  readonly matrix: readonly [out: number, inner: number] | undefined;
}

/** `unfused` is the attention of GPT before flash attention: it keeps the scores, and has dropout. */
export type AttentionShape =
  | {
      readonly kind: "mla";
      readonly nHeads: number;
      readonly qLoraRank: number;
      readonly kvLoraRank: number;
      readonly qkNopeHeadDim: number;
      readonly qkRopeHeadDim: number;
      readonly vHeadDim: number;
      /** DeepSeek-V3.2: scores all positions and leaves `topK` of them to each query. */
      readonly indexer?: { readonly nHeads: number; readonly headDim: number; readonly topK: number };
    }
  | { readonly kind: "gqa" | "unfused"; readonly nHeads: number; readonly nKvHeads: number; readonly headDim: number };

/** `gelu` is the two-matrix MLP of GPT with dropout. */
export type FfnShape =
  | { readonly kind: "swiglu" | "gelu"; readonly width: number }
  | {
      readonly kind: "moe";
      readonly width: number;
      readonly nExperts: number;
      readonly nActivated: number;
      readonly sharedWidth: number;
      /** Groups of the experts, and among how many of them one token may choose. */
      readonly nGroups: number;
      readonly limitedGroups: number;
    };

export interface LayerKind {
  /** A name for formulas: `dense`, `moe`, `mtp`. */
  readonly name: string;
  readonly attention: AttentionShape;
  readonly ffn: FfnShape;
  /** Of one layer. */
  readonly parameters: readonly PlanParameter[];
}

export interface ModelShape extends LayoutModel {
  readonly dim: number;
  readonly vocabSize: number;
  /** Kinds of the main layers, and then the kind of the MTP layers if there are any. */
  readonly kinds: readonly LayerKind[];
  /** For each main layer the index of its kind. */
  readonly layers: readonly number[];
  readonly nMtpLayers: number;
  /** Before the layers: embedding, and what else the first stage holds. */
  readonly front: readonly PlanParameter[];
  /** After the layers: final norm and, unless it is tied, the head. */
  readonly back: readonly PlanParameter[];
  /** Whether the head is the embedding; a pipeline's last stage then holds a copy of it. */
  readonly tied: boolean;
}

/** @throws UnsupportedError for an attention whose activations the planner has no table for. */
export function modelShape(model: ModelConfig): ModelShape {
  const samples = layerSamples(model);
  const numbers = [...new Set(samples)];
  const { layers: sampled, rest } = outline(model);
  const nMain = numbers.filter((n) => n < model.nLayers).length;
  const kinds = mainKinds(model, sampled.slice(0, nMain));
  const mtpKind = sampled[nMain] === undefined ? [] : [layerKind(model, sampled[nMain], "mtp")];
  const other = rest.children.flatMap(parametersOf);
  const isBack = ({ group, name }: ParameterSpec): boolean => group === "head" || name === "norm";
  const all = [...kinds, ...mtpKind];
  return {
    nLayers: model.nLayers,
    nHeads: model.nHeads,
    ffnWidths: [...new Set(all.flatMap(({ ffn }) => tensorWidths(ffn)))],
    nRoutedExperts: all.some(({ ffn }) => ffn.kind === "moe") ? model.nRoutedExperts : 0,
    moeInterDim: model.moeInterDim,
    dim: model.dim,
    vocabSize: model.vocabSize,
    kinds: all,
    layers: samples.slice(0, model.nLayers).map((n) => numbers.indexOf(n)),
    nMtpLayers: samples.length - model.nLayers,
    front: [...rest.parameters.filter((parameter) => !isBack(parameter)), ...other].map(planParameter),
    back: rest.parameters.filter(isBack).map(planParameter),
    tied: model.tieEmbeddings,
  };
}

function tensorWidths(ffn: FfnShape): number[] {
  if (ffn.kind !== "moe") return [ffn.width];
  return ffn.sharedWidth === 0 ? [] : [ffn.sharedWidth];
}

/** @param layers - one of each kind: those with experts and those without have their names. */
function mainKinds(model: ModelConfig, layers: readonly Module[]): LayerKind[] {
  const same = { dense: 0, moe: 0 };
  return layers.map((layer) => {
    const base = hasExperts(layer) ? "moe" : "dense";
    same[base]++;
    return layerKind(model, layer, same[base] === 1 ? base : `${base}${same[base]}`);
  });
}

function hasExperts(layer: Module): boolean {
  return parametersOf(layer).some(({ group }) => group === "routed_experts");
}

function layerKind(model: ModelConfig, layer: Module, name: string): LayerKind {
  const parameters = parametersOf(layer);
  const find = (part: string) => parameters.find((parameter) => parameter.name === `${layer.name}.${part}`);
  return {
    name,
    attention: attentionShape(model, find),
    ffn: ffnShape(model, hasExperts(layer), find),
    parameters: parameters.map((parameter) =>
      planParameter({ ...parameter, name: parameter.name.slice(layer.name.length + 1) }),
    ),
  };
}

type Find = (part: string) => ParameterSpec | undefined;

function attentionShape(model: ModelConfig, find: Find): AttentionShape {
  const { nHeads, qLoraRank, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = model;
  if (model.attention === "csa") {
    const rule =
      "compressed sparse attention (DeepSeek-V4) cannot be planned yet: its parameters are counted (`fathom params`), not its activations, FLOPs and cache";
    throw new UnsupportedError("plan", rule, "csa", ["mla", "mha", "gqa"], "plan a model with one of these attentions");
  }
  if (find("attn.wkv_b") !== undefined) {
    const mla = { kind: "mla", nHeads, qLoraRank, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } as const;
    if (model.indexNHeads === 0) return mla;
    return { ...mla, indexer: { nHeads: model.indexNHeads, headDim: model.indexHeadDim, topK: model.indexTopk } };
  }
  const [wq, wk, wv] = ["attn.wq", "attn.wk", "attn.wv"].map(find);
  if (wq === undefined || wk === undefined || wv === undefined) {
    const cure = "its parameters can still be counted with `fathom params`";
    throw new UnsupportedError("plan", "attention must be MLA, MHA or GQA", "another", ["mla", "mha", "gqa"], cure);
  }
  const headDim = wq.shape[0]! / nHeads;
  return { kind: "gqa", nHeads, nKvHeads: wk.shape[0]! / headDim, headDim };
}

function ffnShape(model: ModelConfig, moe: boolean, find: Find): FfnShape {
  const w1 = find(moe ? "ffn.experts.w1" : "ffn.w1");
  invariant(w1 !== undefined, "a layer has a first FFN matrix");
  if (!moe) return { kind: find("ffn.w3") === undefined ? "gelu" : "swiglu", width: w1.shape[0]! };
  return {
    kind: "moe",
    width: w1.shape[1]!,
    nExperts: w1.shape[0]!,
    nActivated: model.nActivatedExperts,
    sharedWidth: find("ffn.shared_experts.w1")?.shape[0] ?? 0,
    nGroups: model.nExpertGroups,
    limitedGroups: model.nLimitedGroups,
  };
}

function planParameter({ name, shape, shardAxes, kind, activeShare }: ParameterSpec): PlanParameter {
  return {
    name,
    elements: countElements(shape),
    tensor: shardAxes.tensor !== undefined,
    expert: shardAxes.expert !== undefined,
    kind: kind === "trainable" ? "trainable" : "buffer",
    activeShare,
    matrix: shape.length < 2 ? undefined : [shape.at(-2)!, shape.at(-1)!],
  };
}

/** Elements that one token uses. */
export function activeElements(parameters: readonly PlanParameter[]): number {
  return parameters.reduce((sum, { elements, activeShare }) => sum + Math.round(elements * activeShare), 0);
}

/** How many layers of each kind the model has, MTP layers last. */
export function layerCounts({ kinds, layers, nMtpLayers }: ModelShape): number[] {
  return kinds.map(({ name }, kind) => (name === "mtp" ? nMtpLayers : layers.filter((k) => k === kind).length));
}

/** The model trained or run without its MTP layers. */
export function withoutMtp(shape: ModelShape): ModelShape {
  return { ...shape, kinds: shape.kinds.filter(({ name }) => name !== "mtp"), nMtpLayers: 0 };
}

export interface AdapterSettings {
  readonly rank: number;
  /** Which matrices carry one: ends of parameter names, for example `attn.wq_b` or `ffn.experts.w1`. */
  readonly targets: readonly string[];
}

/**
 * The shape with LoRA adapters: A [r, in] and B [out, r] on each target are trained, the rest is frozen. The factor
 * at the cut side of a matrix is cut with it; the other is whole on each tensor-parallel rank.
 *
 * **Source:** Hu et al. 2021.
 */
export function withAdapters(shape: ModelShape, { rank, targets }: AdapterSettings): ModelShape {
  const adapt = (parameters: readonly PlanParameter[]): PlanParameter[] =>
    parameters.flatMap((parameter) => {
      const frozen: PlanParameter = parameter.kind === "trainable" ? { ...parameter, kind: "frozen" } : parameter;
      const isTarget = targets.some((end) => parameter.name === end || parameter.name.endsWith(`.${end}`));
      return isTarget && parameter.matrix !== undefined ? [frozen, ...adapters(parameter, rank)] : [frozen];
    });
  return {
    ...shape,
    kinds: shape.kinds.map((kind) => ({ ...kind, parameters: adapt(kind.parameters) })),
    front: adapt(shape.front),
    back: adapt(shape.back),
  };
}

function adapters(parameter: PlanParameter, rank: number): PlanParameter[] {
  const [out, inner] = parameter.matrix!;
  const copies = parameter.elements / (out * inner);
  // Row-parallel matrices (w2, wo) are cut along their inputs, so A is cut; the others along their outputs, so B is.
  const rowParallel = /(^|\.)(w2|wo)$/.test(parameter.name);
  const factor = (letter: string, rows: number, columns: number, cut: boolean): PlanParameter => ({
    ...parameter,
    name: `${parameter.name}.lora_${letter}`,
    elements: copies * rows * columns,
    tensor: parameter.tensor && cut,
    matrix: [rows, columns],
  });
  return [factor("A", rank, inner, rowParallel), factor("B", out, rank, !rowParallel)];
}
