/** Parameters as the tensors of a Hugging Face checkpoint, written and read in windows. */

import { blueprint, checkpointCopies, checkpointNames, type CheckpointTensor } from "../blueprint/index.ts";
import type { ModelConfig } from "../config/index.ts";
import { FormatError } from "../core/errors.ts";
import type { TensorReader, TensorSource } from "../formats/index.ts";
import { sizeOf, type Tensor } from "../tensor/index.ts";
import type { ParameterSet } from "./parameters.ts";
import { readRaw, readValues, scaleNameOf, type StoredPart } from "./stored-values.ts";

/** Bytes that are in JavaScript memory at a time. */
const WINDOW_BYTES = 16 * 2 ** 20;

/** A tensor as a safetensors entry of its own type. */
export function tensorSource(name: string, tensor: Tensor): TensorSource {
  const dtype = ({ f32: "F32", f64: "F64", bf16: "BF16", i32: "I32" } as const)[tensor.dtype];
  return { name, dtype, shape: tensor.shape, chunks: () => windows(tensor) };
}

function* windows(tensor: Tensor): Generator<Uint8Array> {
  for (let at = 0; at < tensor.bytes; at += WINDOW_BYTES) {
    yield tensor.readBytes(at, Math.min(WINDOW_BYTES, tensor.bytes - at));
  }
}

/** Fills a tensor of the same type and size from a file. */
export async function readTensor(reader: TensorReader, name: string, into: Tensor): Promise<void> {
  await readRaw(reader, { name, at: 0 }, into);
}

/** The tensors of a model file under their Hugging Face names; stacked experts are written one by one. */
export function weightSources(config: ModelConfig, parameters: ParameterSet): TensorSource[] {
  return checkpointNames(blueprint(config)).map((entry) => tensorSource(entry.name, partOf(parameters, entry)));
}

function partOf(parameters: ParameterSet, { parameter, expert = 0, shape }: CheckpointTensor): Tensor {
  return parameters.get(parameter).value.view(expert * sizeOf(shape), shape);
}

const CURE = "check that config.json belongs to these weights";

/**
 * Fills every parameter from a checkpoint in f32, bf16, f16 or fp8 blocks; the experts of a layer may stand apart or
 * fused. Tensors of parameters that the set leaves out, such as those of MTP layers, are passed over.
 *
 * @throws FormatError when a tensor is missing, unexpected or of another shape; UnsupportedError for another type.
 */
export async function loadWeights(
  config: ModelConfig,
  parameters: ParameterSet,
  reader: TensorReader,
  file: string,
): Promise<void> {
  const located = locateWeights(config, reader, file).filter(({ entry }) => parameters.has(entry.parameter));
  const lost = located.find(({ part }) => part === undefined);
  if (lost !== undefined) throw new FormatError(file, `must hold ${lost.entry.name}, which is missing`, { cure: CURE });
  refuseOthers(config, reader, file);
  for (const { entry, part } of located) await readValues(reader, part!, partOf(parameters, entry));
}

/** A tensor of the model, and where a checkpoint holds it. */
interface Located {
  readonly entry: CheckpointTensor;
  readonly part: StoredPart | undefined;
}

/** Where a checkpoint holds each tensor of its model. @throws FormatError for one of another shape. */
export function locateWeights(config: ModelConfig, reader: TensorReader, file: string): Located[] {
  return checkpointNames(blueprint(config)).map((entry) => {
    const place = placesOf(config, entry).find(({ name }) => reader.tensors.has(name));
    if (place === undefined) return { entry, part: undefined };
    const { name, shape } = place;
    const got = reader.tensors.get(name)!.shape;
    if (got.join() === shape.join()) return { entry, part: place };
    throw new FormatError(file, `${name} must have shape [${shape.join(", ")}]`, { got, cure: CURE });
  });
}

interface Place extends StoredPart {
  /** Of the whole stored tensor. */
  readonly shape: readonly number[];
}

/** The tensor itself, or its part of the fused experts that transformers 5 holds in memory. */
function placesOf({ nRoutedExperts }: ModelConfig, { name, shape, expert }: CheckpointTensor): Place[] {
  const whole = { name, at: 0, shape };
  const fused = /^(.*\.experts)\.\d+\.(gate|up|down)_proj\.weight$/.exec(name);
  if (fused === null || expert === undefined) return [whole];
  const [, experts, kind] = fused;
  const [rows = 0, columns = 0] = shape;
  const size = rows * columns;
  if (kind === "down") {
    return [whole, { name: `${experts}.down_proj`, at: expert * size, shape: [nRoutedExperts, rows, columns] }];
  }
  const at = (2 * expert + (kind === "up" ? 1 : 0)) * size;
  return [whole, { name: `${experts}.gate_up_proj`, at, shape: [nRoutedExperts, 2 * rows, columns] }];
}

/** A table that old checkpoints of LLaMA models hold beside the weights; it follows from the configuration. */
const ROTARY_TABLE = /\.self_attn\.rotary_emb\.inv_freq$/;

function refuseOthers(config: ModelConfig, reader: TensorReader, file: string): void {
  const plan = blueprint(config);
  const places = checkpointNames(plan).flatMap((entry) => placesOf(config, entry));
  const known = new Set(checkpointCopies(plan).map(({ name }) => name));
  for (const { name } of places) {
    known.add(name);
    if (reader.tensors.get(name)?.dtype === "F8_E4M3") known.add(scaleNameOf(name));
  }
  const got = [...reader.tensors.keys()].find((name) => !known.has(name) && !ROTARY_TABLE.test(name));
  if (got !== undefined) throw new FormatError(file, "must hold only tensors of its model", { got, cure: CURE });
}
