/** Parameters as the tensors of a Hugging Face checkpoint, written and read in windows. */

import { blueprint, checkpointNames, type CheckpointTensor } from "../blueprint/index.ts";
import type { ModelConfig } from "../config/index.ts";
import { invariant } from "../core/errors.ts";
import type { TensorReader, TensorSource } from "../formats/index.ts";
import { sizeOf, type Tensor } from "../tensor/index.ts";
import type { ParameterSet } from "./parameters.ts";
import { folderPlaces, partsOf } from "./places.ts";
import { PLAIN_TYPES, readRaw, readValues, WINDOW_BYTES } from "./stored-values.ts";

/** A tensor as a safetensors entry of its own type. */
export function tensorSource(name: string, tensor: Tensor): TensorSource {
  const dtype = PLAIN_TYPES[tensor.dtype];
  invariant(dtype !== undefined, `${name} is of a plain type`);
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

/**
 * Fills every parameter from a checkpoint in f32, bf16, f16, fp8 blocks or int8; the experts of a layer may stand apart or
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
  const places = folderPlaces(config, reader, file, (parameter) => parameters.has(parameter));
  for (const [name, place] of places) {
    const { value } = parameters.get(name);
    for (const [i, part] of partsOf(place).entries()) {
      await readValues(reader, part, value.view(i * sizeOf(part.shape), part.shape));
    }
  }
}
