/** A Hugging Face folder as files to write: configuration, tokenizer, shards of tensors and their index. */

import { fusedExperts, releasedTensors, blueprint as blueprintOf, type Blueprint } from "../blueprint/index.ts";
import { hfConfigText, type ModelConfig } from "../config/index.ts";
import { tensorBytes, writeSafetensors } from "../formats/index.ts";
import type { ModelWeights } from "./model-weights.ts";
import { encodedChunks, splitBySize, type OutputTensor } from "./output-tensor.ts";
import { sumBytes, textFile, type OutputFile, type OutputPlan } from "./plan.ts";
import type { SourceTokenizer } from "./source-tokenizer.ts";
import { matrixShape, sliceRows, stackRows } from "./weight-rows.ts";

export const HF_DTYPES = ["f32", "bf16", "f16"] as const;
export type HfDType = (typeof HF_DTYPES)[number];

export interface HfOutput {
  readonly dtype: HfDType;
  readonly maxShardBytes: number;
  /** Whether the experts of a layer are written as two tensors, not one by one. */
  readonly fused: boolean;
}

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

export function planHf(
  source: Blueprint,
  weights: ModelWeights,
  tokenizer: SourceTokenizer,
  options: HfOutput,
): OutputPlan {
  const model: ModelConfig = { ...source.model, dtype: options.dtype, scaleFmt: null, expertDtype: null };
  const tensors = hfTensors(blueprintOf(model), weights, options.fused);
  const groups = splitBySize(tensors, options.maxShardBytes);
  const shards = groups.map((group, i) => shardFile(shardName(i, groups.length), group));
  const index = groups.length === 1 ? [] : [textFile(INDEX, indexText(groups))];
  const config = textFile("config.json", hfConfigText(model, tokenizer.ids));
  return { files: [config, ...tokenizer.hfFiles, ...shards, ...index], notices: [], tensors: tensors.length };
}

function hfTensors(plan: Blueprint, weights: ModelWeights, isFused: boolean): OutputTensor[] {
  const fused = isFused ? fusedExperts(plan) : [];
  const replaced = new Set(fused.flatMap(({ parameters }) => parameters));
  const dtype = ({ f32: "F32", bf16: "BF16", f16: "F16" } as const)[plan.model.dtype as HfDType];
  const separate = [...releasedTensors(plan)]
    .filter(({ parameter }) => !replaced.has(parameter))
    .map(({ name, shape, dtype: own, parameter, expert = 0 }): OutputTensor => {
      const { rows } = matrixShape(shape);
      const output = { name, shape, dtype: own as OutputTensor["dtype"], bytes: tensorBytes(own, shape)! };
      return { ...output, rows: () => sliceRows(weights.of(parameter), expert * rows, rows) };
    });
  const together = fused.map(({ name, shape, parameters }): OutputTensor => {
    const [experts = 0, rows = 0] = shape;
    const own = rows / parameters.length;
    const rowsOf = (): ReturnType<OutputTensor["rows"]> => {
      const parts = parameters.map((parameter) => weights.of(parameter));
      return stackRows(
        Array.from({ length: experts }, (_, e) => parts.map((part) => sliceRows(part, e * own, own))).flat(),
      );
    };
    return { name, shape, dtype, bytes: tensorBytes(dtype, shape)!, rows: rowsOf };
  });
  return [...separate, ...together];
}

function shardName(i: number, count: number): string {
  const digits = (n: number): string => String(n).padStart(5, "0");
  return count === 1 ? SINGLE : `model-${digits(i + 1)}-of-${digits(count)}.safetensors`;
}

function shardFile(name: string, tensors: readonly OutputTensor[]): OutputFile {
  const sources = tensors.map((tensor) => ({
    name: tensor.name,
    dtype: tensor.dtype as "F32",
    shape: tensor.shape,
    chunks: () => encodedChunks(tensor),
  }));
  return { name, bytes: sumBytes(tensors), write: (port, path) => writeSafetensors(port, path, sources) };
}

function indexText(groups: readonly OutputTensor[][]): string {
  const map = groups.flatMap((group, i) => group.map(({ name }) => [name, shardName(i, groups.length)]));
  const index = { metadata: { total_size: sumBytes(groups.flat()) }, weight_map: Object.fromEntries(map) as unknown };
  return `${JSON.stringify(index, null, 2)}\n`;
}
