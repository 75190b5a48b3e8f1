/** Where a checkpoint holds each parameter of its model, read from headers alone. */

import {
  blueprint,
  checkpointCopies,
  checkpointNames,
  ggufNames,
  type CheckpointTensor,
  type GgufTensorName,
} from "../blueprint/index.ts";
import type { ModelConfig } from "../config/index.ts";
import { FormatError, invariant, UnsupportedError } from "../core/errors.ts";
import { BLOCK_TYPES } from "../core/index.ts";
import type { OpenTensors, StoredTensor } from "../formats/index.ts";
import { sizeOf } from "../tensor/index.ts";
import { isScaleOf } from "./stored-scale.ts";

/** A matrix or a vector in a stored tensor: all of it, or one of several. */
export interface StoredPart {
  /** Of the tensor. */
  readonly name: string;
  readonly tensor: StoredTensor;
  /** First element. */
  readonly at: number;
  readonly shape: readonly number[];
}

/** A parameter: whole, one matrix for each expert, or its heads' keys [H, C, P] and values [H, U, C] apart. */
export type Place =
  | { readonly kind: "whole"; readonly part: StoredPart }
  | { readonly kind: "experts"; readonly parts: StoredPart[] }
  | { readonly kind: "heads"; readonly keys: StoredPart; readonly values: StoredPart };

/** By the parameter's name in the blueprint. */
export type Places = ReadonlyMap<string, Place>;

/** The parts of one parameter, experts in their order. */
export function partsOf(place: Place): readonly StoredPart[] {
  switch (place.kind) {
    case "whole":
      return [place.part];
    case "experts":
      return place.parts;
    case "heads":
      return [place.keys, place.values];
    default:
      return place satisfies never;
  }
}

type Open = OpenTensors<StoredTensor>;

const CURE = "check that config.json belongs to these weights";

/** What a folder's tensors are stored in; the last two have tensors of scales beside them. */
const FOLDER_TYPES = ["F32", "F16", "BF16", "F8_E4M3", "I8"];

function checkType(name: string, { dtype, file }: StoredTensor, known: readonly string[]): void {
  if (known.includes(dtype)) return;
  throw new UnsupportedError(`${file} ${name}`, "must be stored in a type that loads", dtype, known);
}

/**
 * The parameters for which `isWanted` holds, in a Hugging Face checkpoint; the experts of a layer may stand apart or
 * fused.
 *
 * @throws FormatError when a tensor is missing, unexpected or of another shape; UnsupportedError for a type that does not
 * load.
 */
export function folderPlaces(
  config: ModelConfig,
  open: Open,
  file: string,
  isWanted: (parameter: string) => boolean,
): Places {
  const places = new Map<string, Place>();
  for (const entry of checkpointNames(blueprint(config))) {
    const part = findPart(config, entry, open, file);
    if (!isWanted(entry.parameter)) continue;
    if (part === undefined) throw new FormatError(file, `must hold ${entry.name}, which is missing`, { cure: CURE });
    checkType(part.name, part.tensor, FOLDER_TYPES);
    addPart(places, entry, part);
  }
  refuseOthers(config, open, file);
  return places;
}

function addPart(places: Map<string, Place>, { parameter, expert }: CheckpointTensor, part: StoredPart): void {
  const before = places.get(parameter);
  if (expert === undefined) places.set(parameter, { kind: "whole", part });
  else if (before?.kind === "experts") before.parts.push(part);
  else places.set(parameter, { kind: "experts", parts: [part] });
}

/** @throws FormatError for a tensor of another shape. */
function findPart(config: ModelConfig, entry: CheckpointTensor, open: Open, file: string): StoredPart | undefined {
  const place = candidates(config, entry).find(({ name }) => open.tensors.has(name));
  if (place === undefined) return undefined;
  const { name, at, whole } = place;
  const tensor = open.tensors.get(name)!;
  if (tensor.shape.join() === whole.join()) return { name, tensor, at, shape: entry.shape };
  throw new FormatError(file, `${name} must have shape [${whole.join(", ")}]`, { got: tensor.shape, cure: CURE });
}

interface Candidate {
  readonly name: string;
  readonly at: number;
  /** Shape of the tensor. */
  readonly whole: readonly number[];
}

/** The tensor itself, or its part of the fused experts that transformers 5 holds in memory. */
function candidates({ nRoutedExperts }: ModelConfig, { name, shape, expert }: CheckpointTensor): Candidate[] {
  const own = { name, at: 0, whole: shape };
  const fused = /^(.*\.experts)\.\d+\.(gate|up|down)_proj\.weight$/.exec(name);
  if (fused === null || expert === undefined) return [own];
  const [, experts, kind] = fused;
  const [rows = 0, columns = 0] = shape;
  const size = rows * columns;
  if (kind === "down") {
    return [own, { name: `${experts}.down_proj`, at: expert * size, whole: [nRoutedExperts, rows, columns] }];
  }
  const at = (2 * expert + (kind === "up" ? 1 : 0)) * size;
  return [own, { name: `${experts}.gate_up_proj`, at, whole: [nRoutedExperts, 2 * rows, columns] }];
}

/** A table that old checkpoints of LLaMA models hold beside the weights; it follows from the configuration. */
const ROTARY_TABLE = /\.self_attn\.rotary_emb\.inv_freq$/;

function refuseOthers(config: ModelConfig, { tensors }: Open, file: string): void {
  const plan = blueprint(config);
  const known = new Set(checkpointCopies(plan).map(({ name }) => name));
  for (const entry of checkpointNames(plan)) for (const { name } of candidates(config, entry)) known.add(name);
  const isKnown = (name: string): boolean =>
    known.has(name) || ROTARY_TABLE.test(name) || isScaleOf(name, tensors, (weight) => known.has(weight));
  const got = [...tensors.keys()].find((name) => !isKnown(name));
  if (got !== undefined) throw new FormatError(file, "must hold only tensors of its model", { got, cure: CURE });
}

/**
 * The parameters of a model in a GGUF file whose names and shapes `openModel` has checked. Rows of queries and keys stand
 * there for a rotation of neighbouring pairs, and are left so.
 *
 * @throws UnsupportedError for a type that does not load.
 */
export function ggufPlaces(config: ModelConfig, open: Open): Places {
  const splitKvB = open.tensors.has("blk.0.attn_k_b.weight");
  const places = new Map<string, Place>();
  let keys: StoredPart | undefined;
  for (const entry of ggufNames(blueprint(config), { splitKvB })) {
    const part = ggufPart(entry, open);
    const parameter = entry.parameters[0]!;
    // The values of a parameter follow its keys.
    if (entry.layout === "keys") keys = part;
    else if (entry.layout === "values") places.set(parameter, { kind: "heads", keys: keys!, values: part });
    else if (part.shape.length === 3) places.set(parameter, { kind: "experts", parts: stackParts(part) });
    else places.set(parameter, { kind: "whole", part });
  }
  return places;
}

/** Only V4 joins parameters of several names in one tensor. */
function ggufPart({ name, shape, parameters }: GgufTensorName, { tensors }: Open): StoredPart {
  invariant(parameters.length === 1, "a tensor of a model that runs holds one parameter");
  const tensor = tensors.get(name)!;
  checkType(name, tensor, BLOCK_TYPES);
  return { name, tensor, at: 0, shape };
}

function stackParts(part: StoredPart): StoredPart[] {
  const [experts = 0, ...shape] = part.shape;
  return Array.from({ length: experts }, (_, expert) => ({ ...part, at: expert * sizeOf(shape), shape }));
}
