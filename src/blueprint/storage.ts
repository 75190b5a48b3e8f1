/**
 * How a released checkpoint holds each parameter: element types, block scales, packed experts, copies. Everything
 * follows from the tree and the model's `dtype`, `expertDtype` and kind of attention.
 *
 * **Source:** deepseek-ai/DeepSeek-V3 README_WEIGHTS.md and inference/fp8_cast_bf16.py; DeepSeek-V4-Flash
 * inference/convert.py for packed fp4 and byte-wide scales.
 */

import type { ModelConfig } from "../config/index.ts";
import { FP8_BLOCK } from "../core/index.ts";
import type { Counted } from "./blueprint.ts";
import { countElements, exactSum, type CountedParameter, type ParameterSpec } from "./parameter.ts";

/** Bits of an element; the names are those of safetensors. */
const DTYPE_BITS = { F32: 32, F16: 16, BF16: 16, F8_E4M3: 8, F8_E8M0: 8, I8: 8, I64: 64 } as const;

export type StoredDType = keyof typeof DTYPE_BITS;

/** Columns of a weight that share one fp4 scale. */
const FP4_BLOCK = 32;

/** What a stored tensor is: a parameter, a scale of one, a table, or a further copy of a parameter. */
export type StoredRole = "parameter" | "scale" | "table" | "duplicate";

/** Equal tensors of a checkpoint: one for each expert of a stack, otherwise a single one. */
export interface StoredPart {
  readonly role: StoredRole;
  readonly dtype: StoredDType;
  /** Shape of one tensor as it stands in the file. */
  readonly shape: readonly number[];
  readonly tensors: number;
}

/** The tensors that hold a parameter: its values and, where they are quantised, their scales. */
export function storedParts(model: ModelConfig, parameter: ParameterSpec): StoredPart[] {
  const isStack = parameter.group === "routed_experts";
  const shape = isStack ? parameter.shape.slice(1) : parameter.shape;
  const tensors = isStack ? parameter.shape[0]! : 1;
  const role = parameter.kind === "table" ? "table" : "parameter";
  const part = (dtype: StoredDType): StoredPart[] => [{ role, dtype, shape, tensors }];
  switch (parameter.storage) {
    case "f32":
      return part("F32");
    case "i64":
      return part("I64");
    case "plain":
      return part(plainType(model));
    case "expert":
      if (model.expertDtype === "fp4") return packedParts(shape, tensors);
      return matrixParts(model, shape, tensors);
    case "matrix":
      return matrixParts(model, shape, tensors);
    default:
      return parameter.storage satisfies never;
  }
}

function plainType({ dtype }: ModelConfig): StoredDType {
  return ({ f32: "F32", f16: "F16", bf16: "BF16", fp8: "BF16" } as const)[dtype];
}

/** With fp8, blocks of 128 × 128 with one scale each, partial ones at the edges; V4 stores a scale as its exponent. */
function matrixParts(model: ModelConfig, shape: readonly number[], tensors: number): StoredPart[] {
  if (model.dtype !== "fp8") return [{ role: "parameter", dtype: plainType(model), shape, tensors }];
  return [
    { role: "parameter", dtype: "F8_E4M3", shape, tensors },
    {
      role: "scale",
      dtype: model.attention === "csa" ? "F8_E8M0" : "F32",
      shape: shape.map((n) => Math.ceil(n / FP8_BLOCK)),
      tensors,
    },
  ];
}

/** fp4: two values in each byte of a row, one scale for each 32 of them. */
function packedParts(shape: readonly number[], tensors: number): StoredPart[] {
  const [rows = 0, columns = 0] = shape;
  return [
    { role: "parameter", dtype: "I8", shape: [rows, columns / 2], tensors },
    { role: "scale", dtype: "F8_E8M0", shape: [rows, columns / FP4_BLOCK], tensors },
  ];
}

/**
 * The copies of embedding and head that the released fp8 files of V3 hold in each MTP layer. V4 has none, nor have the
 * files in other types that Fathom writes.
 */
export function duplicateParts({ model }: Counted): StoredPart[] {
  if (model.attention === "csa" || model.dtype !== "fp8" || model.nMtpLayers === 0) return [];
  const shape = [model.vocabSize, model.dim];
  return [{ role: "duplicate", dtype: plainType(model), shape, tensors: 2 * model.nMtpLayers }];
}

/** @throws ConfigError where a number no longer holds them exactly. */
function bytesOf(dtype: StoredDType, elements: number): number {
  return exactSum([elements * (DTYPE_BITS[dtype] / 8)]);
}

export interface StorageCounts {
  /** Elements as the headers count them: a byte that packs two values is one. */
  readonly elements: number;
  /** Payload, without headers. */
  readonly bytes: number;
  readonly tensors: number;
  /** Elements by type, in the spelling of the format. */
  readonly byDtype: Readonly<Record<string, number>>;
  /** Elements of the scales, the copies and the tables among them. */
  readonly scales: number;
  readonly duplicates: number;
  readonly tables: number;
  /** Bytes by parameter, its scales included. */
  readonly bytesOf: ReadonlyMap<string, number>;
}

/** The whole checkpoint as it is released, MTP layers included. */
export function countStorage(counted: Counted): StorageCounts {
  const sums = new StorageSums();
  for (const parameter of counted.parameters) {
    for (const part of storedParts(counted.model, parameter)) sums.addPart(part, parameter);
  }
  for (const part of duplicateParts(counted)) sums.addPart(part);
  return sums.finish();
}

/** Adds tensors up; the counts are exact as long as their sum is. */
export class StorageSums {
  readonly #byRole: Record<StoredRole, number> = { parameter: 0, scale: 0, duplicate: 0, table: 0 };
  readonly #byDtype: Record<string, number> = {};
  readonly #bytesOf = new Map<string, number>();
  #bytes = 0;
  #tensors = 0;

  addPart({ role, dtype, shape, tensors }: StoredPart, { name, times = 1 }: Partial<CountedParameter> = {}): void {
    const elements = countElements(shape, tensors);
    this.#tensors += times * tensors - 1;
    this.add({ role, dtype, elements: times * elements, bytes: times * bytesOf(dtype, elements) }, name);
  }

  /** @param parameter - whose values or scales they are. */
  add(tensor: { role: StoredRole; dtype: string; elements: number; bytes: number }, parameter?: string): void {
    const { role, dtype, elements, bytes } = tensor;
    this.#byRole[role] += elements;
    this.#byDtype[dtype] = (this.#byDtype[dtype] ?? 0) + elements;
    this.#bytes += bytes;
    this.#tensors++;
    if (parameter !== undefined) this.#bytesOf.set(parameter, (this.#bytesOf.get(parameter) ?? 0) + bytes);
  }

  /** @throws ConfigError where a sum is beyond 2^53. */
  finish(): StorageCounts {
    const { parameter, scale, duplicate, table } = this.#byRole;
    return {
      elements: exactSum([parameter, scale, duplicate, table]),
      bytes: exactSum([this.#bytes]),
      tensors: this.#tensors,
      byDtype: this.#byDtype,
      scales: scale,
      duplicates: duplicate,
      tables: table,
      bytesOf: this.#bytesOf,
    };
  }
}
