/** A GGUF file, or the parts of a split one, as files to write. */

import { ggufNames, type Blueprint, type GgufTensorName } from "../blueprint/index.ts";
import { typeForRows, type WritableBlockType } from "../core/index.ts";
import { ggufBytes, splitGguf, writeGguf, type GgufContent, type GgufEntry } from "../formats/index.ts";
import { toGgufLayout } from "./gguf-weights.ts";
import { ggufKeys } from "./gguf-metadata.ts";
import { ggufVocabulary } from "./gguf-vocabulary.ts";
import type { ModelWeights } from "./model-weights.ts";
import { encodedRows, type OutputTensor } from "./output-tensor.ts";
import { sumBytes, type OutputFile, type OutputPlan } from "./plan.ts";
import type { SourceTokenizer } from "./source-tokenizer.ts";

/** The type of matrices by the name of `--dtype`, with the number that llama.cpp gives such a file. */
const TYPES = {
  f32: ["F32", 0],
  f16: ["F16", 1],
  bf16: ["BF16", 32],
  q8_0: ["Q8_0", 7],
  q6_k: ["Q6_K", 18],
  q5_0: ["Q5_0", 8],
  q4_k: ["Q4_K", 14],
  q4_0: ["Q4_0", 2],
} as const satisfies Readonly<Record<string, readonly [WritableBlockType, number]>>;

export type GgufDType = keyof typeof TYPES;
export const GGUF_DTYPES = Object.keys(TYPES) as readonly GgufDType[];

export interface GgufOutput {
  readonly dtype: GgufDType;
  /** Name of the model. */
  readonly title: string;
  /** Name of the file without its ending. */
  readonly name: string;
  readonly maxPartBytes: number;
}

/** @throws UnsupportedError when llama.cpp could not load the model; FormatError, IoError when its tokenizer is missing. */
export async function planGguf(
  source: Blueprint,
  weights: ModelWeights,
  tokenizer: SourceTokenizer,
  { dtype, title, name, maxPartBytes }: GgufOutput,
): Promise<OutputPlan> {
  const [type, fileType] = TYPES[dtype];
  const keys = ggufKeys(source.model);
  const metadata = new Map<string, GgufEntry>([
    ...keys.metadata,
    ["general.name", { type: "text", value: title }],
    ["general.file_type", { type: "u32", value: fileType }],
    ["general.quantization_version", { type: "u32", value: 2 }],
    ...(await ggufVocabulary(tokenizer, source.model.vocabSize)),
  ]);
  const tensors = ggufTensors(source, weights, type);
  const content = { metadata, tensors };
  const split = splitGguf(content, maxPartBytes);
  const parts = split.length === 1 ? [content] : split;
  const files = parts.map((part, i) => partFile(partName(name, i, parts.length), part, tensors));
  return {
    files,
    notices: [...keys.notices, ...fallbackNotices(tensors, type), ...settingNotices(tokenizer)],
    tensors: tensors.length,
  };
}

type GgufTensor = OutputTensor & { readonly dtype: WritableBlockType };

/** MTP layers are left out. */
function ggufTensors(source: Blueprint, weights: ModelWeights, type: WritableBlockType): GgufTensor[] {
  const main = { ...source, parameters: source.parameters.filter(({ mtp }) => !mtp) };
  return ggufNames(main, { splitKvB: true }).map((entry) => {
    const { name, shape } = entry;
    const dtype = isPlain(entry) ? "F32" : typeForRows(type, shape.at(-1)!);
    const chunks = (): AsyncIterable<Uint8Array> => encodedRows(name, dtype, toGgufLayout(entry, weights, source));
    return { name, shape, dtype, bytes: ggufBytes(dtype, shape)!, chunks };
  });
}

/** Norms, router and its biases are f32 in every file. */
function isPlain({ name, shape }: GgufTensorName): boolean {
  return shape.length === 1 || name.endsWith("ffn_gate_inp.weight");
}

function partName(name: string, i: number, parts: number): string {
  const digits = (n: number): string => String(n).padStart(5, "0");
  return parts === 1 ? `${name}.gguf` : `${name}-${digits(i + 1)}-of-${digits(parts)}.gguf`;
}

function partFile(name: string, part: GgufContent, all: readonly OutputTensor[]): OutputFile {
  const own = new Set(part.tensors.map((tensor) => tensor.name));
  const bytes = sumBytes(all.filter((tensor) => own.has(tensor.name)));
  return { name, bytes, write: (port, path) => writeGguf(port, path, part) };
}

function settingNotices({ hfFiles }: SourceTokenizer): string[] {
  const isThere = hfFiles.some(({ name }) => name === "generation_config.json");
  return isThere ? ["generation_config.json is left out: give temperature and the like where the file runs"] : [];
}

/** As llama.cpp does where rows are no whole blocks. */
function fallbackNotices(tensors: readonly GgufTensor[], type: WritableBlockType): string[] {
  const counts = new Map<string, { columns: number; dtype: string; tensors: number }>();
  for (const { name, shape, dtype } of tensors) {
    if (dtype === type || shape.length === 1 || name.endsWith("ffn_gate_inp.weight")) continue;
    const columns = shape.at(-1)!;
    const key = `${dtype} ${columns}`;
    counts.set(key, { columns, dtype, tensors: (counts.get(key)?.tensors ?? 0) + 1 });
  }
  return [...counts.values()].map(
    ({ columns, dtype, tensors: n }) =>
      `${n} tensor${n === 1 ? "" : "s"} with rows of ${columns} values, no whole blocks of ${type}, will be ${dtype}`,
  );
}
