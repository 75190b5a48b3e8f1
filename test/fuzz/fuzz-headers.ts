/** Feeds damaged files to the header readers and says where they did anything but read or refuse. */

import { FormatError } from "../../src/core/errors.ts";
import { Rng } from "../../src/core/rng.ts";
import { encodeGgufHeader, type GgufEntry } from "../../src/formats/gguf-writer.ts";
import {
  readGgufHeader,
  readSafetensorsHeader,
  type ReadableFile,
  type StoredTensor,
} from "../../src/formats/index.ts";
import { encodeHeader } from "../../src/formats/safetensors-header.ts";
import { mutate } from "./mutations.ts";

type Tensors = ReadonlyMap<string, StoredTensor>;

interface Format {
  readonly name: string;
  readonly read: (file: ReadableFile) => Promise<{ readonly tensors: Tensors }>;
  readonly sound: readonly Uint8Array[];
}

export interface FuzzResult {
  readonly files: number;
  /** Damaged files that are still sound: a flipped bit in a weight, a letter of a name. */
  readonly read: number;
  readonly refused: number;
  /** One sentence for each file that a reader mishandled. */
  readonly faults: readonly string[];
}

/** Reads `count` damaged files of each format; equal seeds give equal files. */
export async function fuzzHeaders(count: number, seed: number): Promise<FuzzResult> {
  const result = { files: 0, read: 0, refused: 0, faults: [] as string[] };
  for (const { name, read, sound } of formats()) {
    const rng = new Rng(seed, `fuzz ${name}`);
    for (let i = 0; i < count; i++) {
      const bytes = mutate(sound[i % sound.length]!, rng);
      const outcome = await tryFile(bytes, read);
      result.files++;
      if (outcome === "read") result.read++;
      else if (outcome === "refused") result.refused++;
      else result.faults.push(`${name} file ${i} of seed ${seed}: ${outcome}`);
    }
  }
  return result;
}

async function tryFile(bytes: Uint8Array, read: Format["read"]): Promise<string> {
  const file = memoryFile(bytes);
  try {
    const { tensors } = await read(file);
    return checkTensors(tensors, bytes.length) ?? file.excess() ?? "read";
  } catch (error) {
    if (!(error instanceof FormatError)) return `must end with a FormatError, got ${String(error)}`;
    if (error.offset === undefined) return `must say where, got ${error.message}`;
    if (error.offset < 0 || error.offset > bytes.length) return `must name a place in the file, got ${error.message}`;
    return file.excess() ?? "refused";
  }
}

/** What is read as sound must lie in the file. */
function checkTensors(tensors: Tensors, fileBytes: number): string | undefined {
  let sum = 0;
  for (const { offset, bytes } of tensors.values()) {
    sum += bytes;
    if (offset < 0 || offset + bytes > fileBytes)
      return `must not read a tensor outside the file, got ${offset} + ${bytes}`;
  }
  return sum <= fileBytes ? undefined : `must not read tensors over each other, got ${sum} bytes of ${fileBytes}`;
}

/** A file in memory that watches what is asked of it. */
function memoryFile(bytes: Uint8Array): ReadableFile & { excess: () => string | undefined } {
  let asked = 0;
  let largest = 0;
  return {
    path: "memory",
    bytes: bytes.length,
    read: (offset, length) => {
      const window = bytes.slice(offset, offset + length);
      asked += window.length;
      largest = Math.max(largest, length);
      return Promise.resolve(window);
    },
    close: () => Promise.resolve(),
    excess: () => {
      // A header that is read in windows may be read again where a value crosses their edge.
      if (asked > 2 * bytes.length + 16) return `must read the file about once, got ${asked} bytes of ${bytes.length}`;
      return largest > bytes.length + 8 ? `must ask for no more than the file has, got ${largest}` : undefined;
    },
  };
}

function formats(): Format[] {
  return [
    { name: "safetensors", read: readSafetensorsHeader, sound: soundSafetensors() },
    { name: "gguf", read: readGgufHeader, sound: soundGgufs() },
  ];
}

function withData(header: Uint8Array, dataBytes: number): Uint8Array {
  const file = new Uint8Array(header.length + dataBytes);
  file.set(header);
  return file;
}

function soundSafetensors(): Uint8Array[] {
  const tensors = [
    { name: "model.embed_tokens.weight", dtype: "BF16", shape: [8, 16] },
    { name: "model.layers.0.mlp.gate_proj.weight", dtype: "F8_E4M3", shape: [4, 16] },
    { name: "model.layers.0.mlp.gate_proj.weight_scale_inv", dtype: "F32", shape: [1, 1] },
    { name: "größe \u{1F600}", dtype: "I64", shape: [] },
  ] as const;
  return [
    withData(encodeHeader(tensors, { format: "pt" }), 256 + 64 + 4 + 8),
    withData(encodeHeader(tensors.slice(0, 1), {}), 256),
    withData(encodeHeader([], { note: "empty" }), 0),
  ];
}

function soundGgufs(): Uint8Array[] {
  const metadata = new Map<string, GgufEntry>([
    ["general.architecture", { type: "text", value: "deepseek2" }],
    ["deepseek2.block_count", { type: "u32", value: 2 }],
    ["deepseek2.rope.freq_base", { type: "f32", value: 10_000 }],
    ["tokenizer.ggml.tokens", { type: "list", of: "text", values: ["a", "ß", "", "token"] }],
    ["tokenizer.ggml.token_type", { type: "list", of: "i32", values: [1, 1, 3, 1] }],
    ["big", { type: "u64", value: 2n ** 60n }],
    ["flags", { type: "list", of: "bool", values: [true, false] }],
  ]);
  const chunks = (): [] => [];
  const tensors = [
    { name: "token_embd.weight", dtype: "Q4_K", shape: [2, 256], chunks },
    { name: "output_norm.weight", dtype: "F32", shape: [16], chunks },
    { name: "blk.0.ffn_gate_exps.weight", dtype: "Q8_0", shape: [2, 2, 32], chunks },
  ] as const;
  return [
    withData(encodeGgufHeader({ metadata, tensors }), 320 + 64 + 192),
    withData(encodeGgufHeader({ metadata: new Map(), tensors: tensors.slice(1, 2) }), 64),
    withData(encodeGgufHeader({ metadata, tensors: [] }), 0),
  ];
}
