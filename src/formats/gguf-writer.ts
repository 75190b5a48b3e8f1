/** Writes a GGUF file as a stream, whole or not at all, in one part or several. */

import { invariant } from "../core/errors.ts";
import { folderOf, writeWhole, type FilePort } from "./file-port.ts";
import { ggufPartPath } from "./gguf-reader.ts";
import {
  GGUF_TYPES,
  GGUF_VALUE_TYPES,
  ggufBytes,
  VALUE_BYTES,
  writeNumber,
  type GgufScalar,
  type GgufScalarType,
  type GgufType,
} from "./gguf-types.ts";

/** A tensor to write; `chunks` is called once, when its bytes are due, and must yield exactly its bytes in order. */
export interface GgufTensorSource {
  readonly name: string;
  readonly dtype: GgufType;
  /** Outermost axis first. */
  readonly shape: readonly number[];
  readonly chunks: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** A value to write: one, or a list of one type. */
export type GgufEntry =
  | { readonly type: GgufScalarType; readonly value: GgufScalar }
  | { readonly type: "list"; readonly of: GgufScalarType; readonly values: readonly GgufScalar[] };

export interface GgufContent {
  readonly metadata: ReadonlyMap<string, GgufEntry>;
  readonly tensors: readonly GgufTensorSource[];
}

/** The default, left unsaid: llama-quantize copies another one into its files but does not keep to it. */
const ALIGNMENT = 32;
const MAGIC_AND_VERSION = [0x47, 0x47, 0x55, 0x46, 3, 0, 0, 0];

/**
 * Writes under a temporary name, waits until all is on the disk, and renames; when it fails, what stood under `path`
 * still stands.
 * @throws IoError when the disk refuses.
 */
export async function writeGguf(port: FilePort, path: string, content: GgufContent): Promise<void> {
  await writeWhole(port, path, fileChunks(content));
}

/**
 * Writes parts of at most `maxBytes` of tensors each (one tensor at least) as `PREFIX-0000i-of-0000n.gguf`. A folder
 * with fewer than n parts is refused on reading, so the last one to appear makes the model whole.
 * @returns the paths in order.
 */
export async function writeSplitGguf(
  port: FilePort,
  prefix: string,
  content: GgufContent,
  maxBytes: number,
): Promise<string[]> {
  const parts = splitGguf(content, maxBytes);
  const paths = parts.map((_, i) => ggufPartPath(prefix, i + 1, parts.length));
  await port.makeFolder(folderOf(prefix));
  for (const [i, part] of parts.entries()) await writeGguf(port, paths[i]!, part);
  return paths;
}

/** The parts that `writeSplitGguf` writes: the metadata stand in the first, and each says which one it is. */
export function splitGguf(content: GgufContent, maxBytes: number): GgufContent[] {
  const groups = splitBySize(content.tensors, maxBytes);
  return groups.map((tensors, i) => {
    const split: [string, GgufEntry][] = [
      ["split.no", { type: "u16", value: i }],
      ["split.count", { type: "u16", value: groups.length }],
      ["split.tensors.count", { type: "i32", value: content.tensors.length }],
    ];
    return { metadata: new Map([...(i === 0 ? content.metadata : []), ...split]), tensors };
  });
}

function splitBySize(tensors: readonly GgufTensorSource[], maxBytes: number): GgufTensorSource[][] {
  const groups: GgufTensorSource[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    const own = bytesOf(tensor);
    if (bytes + own > maxBytes && bytes > 0) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)!.push(tensor);
    bytes += own;
  }
  return groups;
}

async function* fileChunks({ metadata, tensors }: GgufContent): AsyncGenerator<Uint8Array> {
  const header = encodeGgufHeader({ metadata, tensors });
  yield header;
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor);
    let left = bytes;
    for await (const chunk of tensor.chunks()) {
      left -= chunk.byteLength;
      yield chunk;
    }
    invariant(left === 0, `tensor ${tensor.name} yields exactly its bytes, ${left} left`);
    yield new Uint8Array(paddingAfter(bytes));
  }
}

function bytesOf({ name, dtype, shape }: GgufTensorSource): number {
  const bytes = ggufBytes(dtype, shape);
  invariant(bytes !== undefined, `tensor ${name} [${shape.join(", ")}] has rows of whole ${dtype} blocks`);
  return bytes;
}

function paddingAfter(bytes: number): number {
  return (ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT;
}

/** Everything before the first tensor, padded. */
export function encodeGgufHeader({ metadata, tensors }: GgufContent): Uint8Array {
  invariant(new Set(tensors.map(({ name }) => name)).size === tensors.length, "every tensor has a name of its own");
  invariant(!metadata.has("general.alignment"), "the alignment is the writer's own");
  const bytes = new ByteWriter();
  bytes.raw(Uint8Array.from(MAGIC_AND_VERSION));
  bytes.value("u64", tensors.length);
  bytes.value("u64", metadata.size);
  for (const [key, entry] of metadata) writeEntry(bytes, key, entry);
  let offset = 0;
  for (const tensor of tensors) {
    bytes.value("text", tensor.name);
    bytes.value("u32", tensor.shape.length);
    for (const axis of tensor.shape.toReversed()) bytes.value("u64", axis);
    bytes.value("u32", GGUF_TYPES[tensor.dtype].id);
    bytes.value("u64", offset);
    offset += bytesOf(tensor);
    offset += paddingAfter(offset);
  }
  bytes.raw(new Uint8Array(paddingAfter(bytes.length())));
  return bytes.done();
}

function writeEntry(bytes: ByteWriter, key: string, entry: GgufEntry): void {
  bytes.value("text", key);
  bytes.value("u32", GGUF_VALUE_TYPES.indexOf(entry.type));
  if (entry.type !== "list") return bytes.value(entry.type, entry.value);
  bytes.value("u32", GGUF_VALUE_TYPES.indexOf(entry.of));
  bytes.value("u64", entry.values.length);
  for (const value of entry.values) bytes.value(entry.of, value);
}

/** A growing buffer. */
class ByteWriter {
  #bytes = new Uint8Array(2 ** 16);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;

  length(): number {
    return this.#at;
  }

  done(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }

  raw(bytes: Uint8Array): void {
    this.#grow(bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  value(type: GgufScalarType, value: GgufScalar): void {
    if (type === "text") return this.#text(value as string);
    invariant(typeof value !== "string", `a value of type ${type} is no text`);
    this.#grow(VALUE_BYTES[type]);
    writeNumber(this.#view, this.#at, type, value);
    this.#at += VALUE_BYTES[type];
  }

  #text(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.value("u64", bytes.length);
    this.raw(bytes);
  }

  #grow(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(2 * this.#bytes.length, this.#at + bytes));
    larger.set(this.#bytes);
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}
