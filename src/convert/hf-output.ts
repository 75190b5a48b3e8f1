/** A Hugging Face folder as files to write: configuration, tokenizer, shards of tensors and their index. */

import {
  blueprint as blueprintOf,
  fusedExperts,
  releasedTensors,
  type Blueprint,
  type ParameterSpec,
  type ReleasedTensor,
} from "../blueprint/index.ts";
import { hfConfigText, int8Format, type ModelConfig } from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import { tensorBytes, writeSafetensors, type SafetensorsDType } from "../formats/index.ts";
import type { OutputType } from "./elements.ts";
import type { ModelWeights } from "./model-weights.ts";
import { encodedRows, splitBySize, type OutputTensor } from "./output-tensor.ts";
import { sumBytes, textFile, type OutputFile, type OutputPlan } from "./plan.ts";
import { fp8Tensor, int8Tensors } from "./quantised-tensors.ts";
import type { SourceTokenizer } from "./source-tokenizer.ts";
import { matrixShape, sliceRows, stackRows, type WeightRows } from "./weight-rows.ts";

export const HF_DTYPES = ["f32", "bf16", "f16", "fp8", "int8"] as const;
export type HfDType = (typeof HF_DTYPES)[number];

export interface HfOutput {
  readonly dtype: HfDType;
  readonly maxShardBytes: number;
  /** Whether the experts of a layer are written as two tensors, not one by one. */
  readonly fused: boolean;
}

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** @throws ConfigError for fused experts in a type with scales. */
export function planHf(
  source: Blueprint,
  weights: ModelWeights,
  tokenizer: SourceTokenizer,
  { dtype, maxShardBytes, fused }: HfOutput,
): OutputPlan {
  if (fused && (dtype === "fp8" || dtype === "int8")) {
    throw new ConfigError("--fused-experts", "must not stand with a type that has scales", dtype, "leave it out");
  }
  const plan = blueprintOf(modelAs(source.model, dtype));
  const tensors = [
    ...separateTensors(plan, weights, { isFused: fused, isInt8: dtype === "int8" }),
    ...(fused ? fusedTensors(plan, weights) : []),
  ];
  const groups = splitBySize(tensors, maxShardBytes);
  const shards = groups.map((group, i) => shardFile(shardName(i, groups.length), group));
  const index = groups.length === 1 ? [] : [textFile(INDEX, indexText(groups))];
  const text = hfConfigText(plan.model, tokenizer.ids, dtype === "int8" ? int8Format() : undefined);
  const config = textFile("config.json", text);
  return { files: [config, ...tokenizer.hfFiles, ...shards, ...index], notices: [], tensors: tensors.length };
}

/** Beside int8 matrices all is bf16. The scales of V4's fp8 are powers of two. */
function modelAs(model: ModelConfig, dtype: HfDType): ModelConfig {
  const scaleFmt = dtype === "fp8" && model.attention === "csa" ? "ue8m0" : null;
  return { ...model, dtype: dtype === "int8" ? "bf16" : dtype, scaleFmt, expertDtype: null };
}

interface Kinds {
  readonly isFused: boolean;
  readonly isInt8: boolean;
}

/** The tensors of the checkpoint, one for each expert, but for fused ones. The copies in MTP layers are left out. */
function separateTensors(plan: Blueprint, weights: ModelWeights, { isFused, isInt8 }: Kinds): OutputTensor[] {
  const replaced = new Set(isFused ? fusedExperts(plan).flatMap(({ parameters }) => parameters) : []);
  const specs = new Map(plan.parameters.map((spec) => [spec.name, spec]));
  return [...releasedTensors(plan)]
    .filter(({ parameter, role }) => !replaced.has(parameter) && role !== "duplicate")
    .flatMap((tensor) => {
      const spec = specs.get(tensor.parameter)!;
      const rows = (): WeightRows => rowsOf(tensor, spec, weights);
      if (isInt8 && isQuantised(spec)) return int8Tensors(tensor, rows);
      const isFp8 = tensor.dtype === "F8_E4M3" || tensor.role === "scale";
      return isFp8 ? fp8Tensor(tensor, rows, plan.model.scaleFmt) : plainTensor(tensor, rows);
    });
}

/** Those matrices that fp8 checkpoints hold in fp8. */
function isQuantised({ storage }: ParameterSpec): boolean {
  return storage === "matrix" || storage === "expert";
}

/** The values of a tensor, or of the one whose scales it is. */
function rowsOf({ parameter, expert }: ReleasedTensor, { shape }: ParameterSpec, weights: ModelWeights): WeightRows {
  const whole = weights.of(parameter);
  if (expert === undefined) return whole;
  const { rows } = matrixShape(shape.slice(1));
  return sliceRows(whole, expert * rows, rows);
}

type OutputShape = Pick<ReleasedTensor, "name" | "shape" | "dtype">;

function plainTensor({ name, shape, dtype }: OutputShape, rows: () => WeightRows): OutputTensor {
  const chunks = (): AsyncIterable<Uint8Array> => encodedRows(name, dtype as OutputType, rows());
  return { name, shape, dtype, bytes: tensorBytes(dtype, shape)!, chunks };
}

/** Never in fp8, which `planHf` refuses for them. */
function fusedTensors(plan: Blueprint, weights: ModelWeights): OutputTensor[] {
  const dtype = ({ f32: "F32", f16: "F16", bf16: "BF16" } as const)[plan.model.dtype as "f32" | "f16" | "bf16"];
  return fusedExperts(plan).map(({ name, shape, parameters }) => {
    const [experts = 0, rows = 0] = shape;
    const own = rows / parameters.length;
    return plainTensor({ name, shape, dtype }, () => {
      const parts = parameters.map((parameter) => weights.of(parameter));
      return stackRows(
        Array.from({ length: experts }, (_, e) => parts.map((part) => sliceRows(part, e * own, own))).flat(),
      );
    });
  });
}

function shardName(i: number, count: number): string {
  const digits = (n: number): string => String(n).padStart(5, "0");
  return count === 1 ? SINGLE : `model-${digits(i + 1)}-of-${digits(count)}.safetensors`;
}

function shardFile(name: string, tensors: readonly OutputTensor[]): OutputFile {
  const sources = tensors.map((tensor) => ({ ...tensor, dtype: tensor.dtype as SafetensorsDType }));
  return { name, bytes: sumBytes(tensors), write: (port, path) => writeSafetensors(port, path, sources) };
}

function indexText(groups: readonly OutputTensor[][]): string {
  const map = groups.flatMap((group, i) => group.map(({ name }) => [name, shardName(i, groups.length)]));
  const index = { metadata: { total_size: sumBytes(groups.flat()) }, weight_map: Object.fromEntries(map) as unknown };
  return `${JSON.stringify(index, null, 2)}\n`;
}
