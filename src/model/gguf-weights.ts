/**
 * Parameters out of a GGUF file, decoded a window at a time: halves of heads put back for models that rotate them so, and
 * keys and values joined again where the file has them apart.
 */

import { blueprint, ggufNames, type GgufTensorName } from "../blueprint/index.ts";
import type { ModelConfig } from "../config/index.ts";
import { invariant, UnsupportedError } from "../core/errors.ts";
import { BLOCK_TYPES, isBlockType } from "../core/index.ts";
import type { GgufReader } from "../formats/index.ts";
import { openGguf } from "../formats/node.ts";
import type { Tensor } from "../tensor/index.ts";
import { readBlocks, readElements, storeValues } from "./stored-values.ts";
import { narrowParameters, type WeightFile } from "./weight-file.ts";

/**
 * Opens the weights of a file that `openModel` has checked, all but its MTP layers. F32 and F16 are kept exactly; matrices of
 * every other type are rounded to bf16.
 *
 * @param path - a .gguf file, or any part of a split one.
 * @throws UnsupportedError for a type that does not load.
 */
export async function openGgufWeights(path: string, config: ModelConfig): Promise<WeightFile> {
  const reader = await openGguf(path);
  const splitKvB = reader.tensors.has("blk.0.attn_k_b.weight");
  const entries = ggufNames(blueprint({ ...config, nMtpLayers: 0 }), { splitKvB });
  try {
    for (const { name } of entries) checkType(reader, name);
  } catch (error) {
    await reader.close();
    throw error;
  }
  return {
    narrow: narrowParameters(
      entries.map((entry) => ({ parameter: parameterOf(entry), isNarrow: isNarrow(reader, entry) })),
    ),
    fill: async (parameters) => {
      for (const entry of entries) await readEntry(reader, entry, config, parameters.get(parameterOf(entry)).value);
    },
    close: () => reader.close(),
  };
}

function checkType({ tensors }: GgufReader, name: string): void {
  const { dtype, file } = tensors.get(name)!;
  if (isBlockType(dtype)) return;
  throw new UnsupportedError(`${file} ${name}`, "must be stored in a type that loads", dtype, BLOCK_TYPES);
}

/** Only V4 joins parameters of several names in one tensor. */
function parameterOf({ parameters }: GgufTensorName): string {
  invariant(parameters.length === 1, "a tensor of a model that runs holds one parameter");
  return parameters[0]!;
}

function isNarrow({ tensors }: GgufReader, { name, shape }: GgufTensorName): boolean {
  const { dtype } = tensors.get(name)!;
  return shape.length > 1 && dtype !== "F32" && dtype !== "F16" && !name.endsWith("ffn_gate_inp.weight");
}

/** A tensor whose heads stand otherwise than in its parameter. */
interface Heads {
  /** Of each head in the file. */
  readonly rows: number;
  readonly columns: number;
  /** The element of the parameter at which a head begins. */
  readonly begin: (head: number) => number;
  /** The values of a head as the parameter has them. */
  readonly restore: (values: Float32Array) => Float32Array;
}

async function readEntry(reader: GgufReader, entry: GgufTensorName, model: ModelConfig, into: Tensor): Promise<void> {
  if (entry.layout === "same") return readBlocks(reader, entry.name, into);
  const { rows, columns, begin, restore } = headsOf(entry, model);
  const size = rows * columns;
  const heads = entry.shape.reduce((product, n) => product * n, 1) / size;
  for (let head = 0; head < heads; head++) {
    storeValues(into, restore(await readElements(reader, entry.name, head * size, size)), begin(head));
  }
}

function headsOf({ layout, shape }: GgufTensorName, model: ModelConfig): Heads {
  const { headDim, kvLoraRank, qkNopeHeadDim, vHeadDim } = model;
  const columns = shape.at(-1)!;
  const joined = (qkNopeHeadDim + vHeadDim) * kvLoraRank;
  switch (layout) {
    case "halves":
      return {
        ...{ rows: headDim, columns, begin: (head) => head * headDim * columns },
        restore: (values) => toHalves(values, columns),
      };
    case "keys":
      return {
        ...{ rows: kvLoraRank, columns, begin: (head) => head * joined },
        restore: (values) => transpose(values, columns),
      };
    case "values":
      return {
        ...{ rows: vHeadDim, columns, begin: (head) => head * joined + qkNopeHeadDim * kvLoraRank },
        restore: (values) => values,
      };
    case "same":
    case "joined":
      invariant(false, `a tensor of layout ${layout} has no heads to restore`);
  }
}

/** Rows of one head from neighbouring pairs to half-split ones: row 2i becomes row i, row 2i + 1 row i + n/2. */
function toHalves(values: Float32Array, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  const rows = values.length / columns;
  for (let row = 0; row < rows; row++) {
    const to = Math.floor(row / 2) + (row % 2) * (rows / 2);
    out.set(values.subarray(row * columns, (row + 1) * columns), to * columns);
  }
  return out;
}

function transpose(values: Float32Array, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  const rows = values.length / columns;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) out[column * rows + row] = values[row * columns + column]!;
  }
  return out;
}
