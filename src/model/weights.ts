/** Parameters as the tensors of a Hugging Face checkpoint, written and read in windows. */

import { blueprint, checkpointCopies, checkpointNames, type CheckpointTensor } from "../blueprint/index.ts";
import type { ModelConfig } from "../config/index.ts";
import type { DType } from "../core/dtype.ts";
import { FormatError, UnsupportedError } from "../core/errors.ts";
import type { TensorReader, TensorSource } from "../formats/index.ts";
import { sizeOf, type Scope, type Tensor } from "../tensor/index.ts";
import type { ParameterSet } from "./parameters.ts";

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
  for (let at = 0; at < into.bytes; at += WINDOW_BYTES) {
    into.writeBytes(await reader.read(name, at, Math.min(WINDOW_BYTES, into.bytes - at)), at);
  }
}

/** The tensors of a model file under their Hugging Face names; stacked experts are written one by one. */
export function weightSources(config: ModelConfig, parameters: ParameterSet): TensorSource[] {
  return checkpointNames(blueprint(config)).map((entry) => tensorSource(entry.name, partOf(parameters, entry)));
}

function partOf(parameters: ParameterSet, { parameter, expert = 0, shape }: CheckpointTensor): Tensor {
  return parameters.get(parameter).value.view(expert * sizeOf(shape), shape);
}

/**
 * Fills every parameter from a checkpoint in f32 or bf16.
 *
 * @throws FormatError when a tensor is missing, unexpected or of another shape; UnsupportedError for another type.
 */
export async function loadWeights(
  scope: Scope,
  config: ModelConfig,
  parameters: ParameterSet,
  reader: TensorReader,
  file: string,
): Promise<void> {
  const plan = blueprint(config);
  const entries = checkpointNames(plan);
  checkNames(entries, checkpointCopies(plan), reader, file);
  for (const entry of entries) await loadTensor(scope, partOf(parameters, entry), entry, reader);
}

function checkNames(
  entries: readonly CheckpointTensor[],
  copies: readonly CheckpointTensor[],
  reader: TensorReader,
  file: string,
): void {
  const cure = "check that config.json belongs to these weights";
  const known = new Set([...entries, ...copies].map(({ name }) => name));
  const unexpected = [...reader.tensors.keys()].find((name) => !known.has(name));
  if (unexpected !== undefined)
    throw new FormatError(file, "must hold only tensors of its model", { got: unexpected, cure });
  for (const { name, shape } of entries) {
    const found = reader.tensors.get(name);
    if (found === undefined) throw new FormatError(file, `must hold ${name}, which is missing`, { cure });
    if (found.shape.join() !== shape.join()) {
      throw new FormatError(file, `${name} must have shape [${shape.join(", ")}]`, { got: found.shape, cure });
    }
  }
}

const LOADABLE: Readonly<Record<string, DType>> = { F32: "f32", BF16: "bf16" };

async function loadTensor(scope: Scope, target: Tensor, entry: CheckpointTensor, reader: TensorReader): Promise<void> {
  const { dtype } = reader.tensors.get(entry.name)!;
  const stored = LOADABLE[dtype];
  if (stored === undefined)
    throw new UnsupportedError(entry.name, "must be stored in a type that loads", dtype, ["F32", "BF16"]);
  if (stored === target.dtype) return readTensor(reader, entry.name, target);
  using inner = scope.child();
  const cols = target.columns;
  const narrow = inner.empty(target.shape, stored);
  await readTensor(reader, entry.name, narrow);
  const numbers = { rows: target.rows, cols, xStride: cols, yStride: cols, accumulate: 0 };
  inner.run("copy2d", { x: narrow, y: target }, numbers);
}
