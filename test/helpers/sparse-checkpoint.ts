/** Checkpoints of the true size without their weights: true headers, then a hole in the file, which takes no disk. */

import * as fs from "node:fs";
import * as path from "node:path";
import {
  blueprint,
  ggufNames,
  releasedTensors,
  type Blueprint,
  type ReleasedTensor,
} from "../../src/blueprint/index.ts";
import { hfConfigText, resolveConfig } from "../../src/config/index.ts";
import { typeForRows } from "../../src/core/index.ts";
import { encodeGgufHeader, type GgufEntry } from "../../src/formats/gguf-writer.ts";
import { ggufBytes } from "../../src/formats/gguf-types.ts";
import { encodeHeader, tensorBytes } from "../../src/formats/safetensors-header.ts";

function planOf(preset: string): Blueprint {
  return blueprint(resolveConfig({ preset }).model);
}

function writeSparse(file: string, header: Uint8Array, dataBytes: number): void {
  fs.writeFileSync(file, header);
  fs.truncateSync(file, header.length + dataBytes);
}

/**
 * The released checkpoint of a preset as `shards` files of about equal size, with index and config.json.
 * @returns the number of tensors.
 */
export function writeSparseFolder(preset: string, folder: string, shards: number): number {
  const plan = planOf(preset);
  const tensors = [...releasedTensors(plan)];
  const bytesOf = ({ dtype, shape }: ReleasedTensor): number => tensorBytes(dtype, shape)!;
  const total = tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0);
  const groups: ReleasedTensor[][] = Array.from({ length: shards }, () => []);
  let before = 0;
  for (const tensor of tensors) {
    groups[Math.floor((before / total) * shards)]!.push(tensor);
    before += bytesOf(tensor);
  }
  const weightMap: Record<string, string> = {};
  const digits = (n: number): string => String(n).padStart(5, "0");
  for (const [i, group] of groups.entries()) {
    const name = `model-${digits(i + 1)}-of-${digits(shards)}.safetensors`;
    for (const tensor of group) weightMap[tensor.name] = name;
    const bytes = group.reduce((sum, tensor) => sum + bytesOf(tensor), 0);
    writeSparse(path.join(folder, name), encodeHeader(group, { format: "pt" }), bytes);
  }
  const index = { metadata: { total_size: total }, weight_map: weightMap };
  fs.writeFileSync(path.join(folder, "model.safetensors.index.json"), JSON.stringify(index, null, 2));
  fs.writeFileSync(path.join(folder, "config.json"), hfConfigText(plan.model, { bos: 0, eos: 1 }));
  return tensors.length;
}

export interface SparseGguf {
  readonly preset: string;
  readonly arch: string;
  /** Metadata of the architecture, without its prefix. */
  readonly keys: Readonly<Record<string, GgufEntry>>;
  readonly tokens?: number;
  readonly splitKvB?: boolean;
}

/** A GGUF of a preset with matrices in Q4_K, MTP left out, and a vocabulary of `tokens` made-up tokens and merges. */
export function writeSparseGguf(file: string, options: SparseGguf): void {
  const { preset, arch, keys, tokens = 0, splitKvB = true } = options;
  const plan = planOf(preset);
  const main = { ...plan, parameters: plan.parameters.filter((parameter) => !parameter.mtp) };
  const tensors = ggufNames(main, { splitKvB }).map(({ name, shape }) => {
    const isPlain = shape.length === 1 || name.includes("ffn_gate_inp");
    return { name, shape, dtype: isPlain ? "F32" : typeForRows("Q4_K", shape.at(-1)!), chunks: () => [] } as const;
  });
  const text = (value: string): GgufEntry => ({ type: "text", value });
  const list = (of: "text" | "i32", make: (i: number) => string | number): GgufEntry => ({
    type: "list",
    of,
    values: Array.from({ length: tokens }, (_, i) => make(i)),
  });
  const metadata = new Map<string, GgufEntry>([
    ["general.architecture", text(arch)],
    ...Object.entries(keys).map(([key, value]): [string, GgufEntry] => [`${arch}.${key}`, value]),
    ["tokenizer.ggml.model", text("gpt2")],
    ["tokenizer.ggml.tokens", list("text", (i) => `Ġtoken${i}`)],
    ["tokenizer.ggml.token_type", list("i32", () => 1)],
    ["tokenizer.ggml.merges", list("text", (i) => `Ġto ken${i}`)],
  ]);
  const padded = tensors.map(({ dtype, shape }) => Math.ceil(ggufBytes(dtype, shape)! / 32) * 32);
  writeSparse(
    file,
    encodeGgufHeader({ metadata, tensors }),
    padded.reduce((sum, bytes) => sum + bytes, 0),
  );
}
