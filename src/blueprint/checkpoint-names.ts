/**
 * The tensors of a checkpoint as it is released, read from the blueprint: names, shapes, and which parameter (and
 * expert) each one is.
 */

import { invariant } from "../core/errors.ts";
import type { ModelConfig } from "../config/index.ts";
import type { Blueprint } from "./blueprint.ts";
import { BERT, DEEPSEEK, V4, type NameTable } from "./name-tables.ts";
import { duplicateParts, storedParts, type StoredDType, type StoredPart, type StoredRole } from "./storage.ts";

export interface CheckpointTensor {
  /** Name in the checkpoint: `model.layers.3.mlp.experts.7.gate_proj.weight`. */
  readonly name: string;
  readonly shape: readonly number[];
  /** Name of the parameter in the blueprint. */
  readonly parameter: string;
  /** Which expert of a stacked parameter; absent when the tensor is the whole parameter. */
  readonly expert?: number;
}

/** A tensor of the released file with its type; scales and packed experts have the shapes that the file has. */
export interface ReleasedTensor extends CheckpointTensor {
  readonly dtype: StoredDType;
  readonly role: StoredRole;
}

/** Every tensor that a checkpoint of this model must hold; stacked experts are one tensor each. */
export function checkpointNames({ model, parameters }: Blueprint): CheckpointTensor[] {
  const nameOf = namesFor(model);
  return parameters.flatMap((parameter) => {
    const name = nameOf(parameter.name);
    const [experts, ...expertShape] = parameter.shape;
    if (!name.includes("*")) return [{ name, shape: parameter.shape, parameter: parameter.name }];
    return Array.from({ length: experts! }, (_, expert) => ({
      name: name.replace("*", String(expert)),
      shape: expertShape,
      parameter: parameter.name,
      expert,
    }));
  });
}

/** The parameter of each tensor name, with `*` for the expert: some thousand names where a checkpoint has a hundred thousand. */
export function namePatterns({ model, parameters }: Blueprint): Map<string, string> {
  const nameOf = namesFor(model);
  return new Map(parameters.map(({ name }) => [nameOf(name), name]));
}

/**
 * Further tensors that a checkpoint may hold: copies of the embedding and the head in MTP layers, and of a tied head.
 * Reading passes over them; they are never written.
 */
export function checkpointCopies({ model, parameters }: Blueprint): CheckpointTensor[] {
  if (model.attention === "csa" || model.architecture === "encoder") return [];
  const shape = [model.vocabSize, model.dim];
  const prefix = prefixOf(model);
  const head = parameters.some((parameter) => parameter.name === "head") ? "head" : "embed";
  const tied = head === "embed" ? [{ name: `${prefix}lm_head.weight`, shape, parameter: head }] : [];
  const mtp = Array.from({ length: model.nMtpLayers }, (_, k) => {
    const layer = `${prefix}model.layers.${model.nLayers + k}`;
    return [
      { name: `${layer}.embed_tokens.weight`, shape, parameter: "embed" },
      { name: `${layer}.shared_head.head.weight`, shape, parameter: head },
    ];
  });
  return [...tied, ...mtp.flat()];
}

/** Tensors of the released file that differ in their expert alone, or a single one. */
export interface ReleasedGroup extends StoredPart {
  /** The name, with `*` for the expert. */
  readonly name: string;
  readonly parameter: string;
}

/** Everything in the released checkpoint: parameters, scales, tables and the copies of MTP layers. */
export function releasedGroups(blueprint: Blueprint): ReleasedGroup[] {
  const { model, parameters } = blueprint;
  const nameOf = namesFor(model);
  const own = parameters.flatMap((parameter) => {
    const name = nameOf(parameter.name);
    return storedParts(model, parameter).map((part) => ({
      ...part,
      name: part.role === "scale" ? scaleName(model, name) : name,
      parameter: parameter.name,
    }));
  });
  const copies = checkpointCopies(blueprint).filter(({ name }) => name.includes(".layers."));
  const [copy] = duplicateParts(blueprint);
  if (copy === undefined) return own;
  return [...own, ...copies.map(({ name, parameter }) => ({ ...copy, tensors: 1, name, parameter }))];
}

/** The tensors of the released checkpoint one by one. */
export function* releasedTensors(blueprint: Blueprint): Generator<ReleasedTensor> {
  for (const { tensors, ...group } of releasedGroups(blueprint)) {
    if (!group.name.includes("*")) yield group;
    else
      for (let expert = 0; expert < tensors; expert++) {
        yield { ...group, name: group.name.replace("*", String(expert)), expert };
      }
  }
}

function scaleName({ attention }: ModelConfig, weight: string): string {
  return attention === "csa" ? weight.replace(/\.weight$/, ".scale") : `${weight}_scale_inv`;
}

/** The released name of each parameter of a model; `*` stands for the expert. */
function namesFor(model: ModelConfig): (parameter: string) => string {
  const table = tableOf(model);
  return (parameter) => {
    const inLayer = /^layers\.(\d+)\.(.+)$/.exec(parameter);
    if (inLayer === null) return table.top[parameter] ?? ownName(parameter);
    const name = table.inLayer[inLayer[2]!];
    invariant(name !== undefined, `parameter ${parameter} has a name in released checkpoints`);
    return `${layerName(model, table, Number(inLayer[1]))}.${name}`;
  };
}

function layerName(model: ModelConfig, table: NameTable, n: number): string {
  const isMtp = n >= model.nLayers && table.mtp !== undefined;
  return isMtp ? `${table.mtp}.${n - model.nLayers}` : `${prefixOf(model)}${table.layers}.${n}`;
}

function tableOf(model: ModelConfig): NameTable {
  if (model.architecture === "encoder") return BERT;
  if (model.attention === "csa") return V4;
  const prefix = prefixOf(model);
  if (prefix === "") return DEEPSEEK;
  return { ...DEEPSEEK, top: Object.fromEntries(Object.entries(DEEPSEEK.top).map(([own, hf]) => [own, prefix + hf])) };
}

/** In VL2 the language model is a part of the whole. */
function prefixOf({ vision }: ModelConfig): string {
  return vision === null ? "" : "language.";
}

/** Vision tower and projector have the checkpoint's own names; what is no bias and no bare table is a weight. */
function ownName(parameter: string): string {
  return /\.(bias|pos_embed|latent)$|^(image_newline|view_seperator)$/.test(parameter)
    ? parameter
    : `${parameter}.weight`;
}
