/** Reads metadata and tensors of a GGUF file, or of the parts into which one was split, by byte ranges. */

import { FormatError, invariant, IoError } from "../core/errors.ts";
import { ByteCursor } from "./byte-cursor.ts";
import type { FilePort, ReadableFile } from "./file-port.ts";
import { readGgufHeader, type GgufHeader, type GgufList, type GgufTensor, type GgufValue } from "./gguf-header.ts";
import { readNumber, VALUE_BYTES, type GgufScalar } from "./gguf-types.ts";
import { closeAll, openRanges, type OpenTensors } from "./tensor-reader.ts";

/** Open tensors of a GGUF with its metadata, which is that of the first part. */
export interface GgufReader extends OpenTensors<GgufTensor> {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** The values of a list. @throws FormatError when a text in it is not UTF-8. */
  readList(key: string): Promise<GgufScalar[]>;
}

/** `NAME-00001-of-00003.gguf`, the naming of llama-gguf-split. */
const PART = /-(\d{5})-of-(\d{5})\.gguf$/;

/** The path of part `part` (from 1) of `parts`. */
export function ggufPartPath(prefix: string, part: number, parts: number): string {
  const digits = (n: number): string => String(n).padStart(5, "0");
  return `${prefix}-${digits(part)}-of-${digits(parts)}.gguf`;
}

/**
 * Opens a `.gguf` file; of a split one, any part opens all. Headers are read and checked at once, tensors and long
 * lists when they are asked for.
 * @throws FormatError for a malformed file or parts that do not belong together. @throws IoError when one is missing.
 */
export async function openGgufTensors(port: FilePort, path: string): Promise<GgufReader> {
  const files = new Map<string, ReadableFile>();
  const open = async (part: string): Promise<GgufHeader> => {
    if (part !== path && !(await port.isFile(part))) throw missingPart(part);
    files.set(part, files.get(part) ?? (await port.openRead(part)));
    return readGgufHeader(files.get(part)!);
  };
  try {
    const header = await open(path);
    const parts = await openParts(path, header, open);
    const [[first, { metadata }]] = parts as [[string, GgufHeader]];
    const tensors = mergeParts(parts);
    const readList = (key: string): Promise<GgufScalar[]> => readValues(files.get(first), key, metadata.get(key));
    return { ...openRanges(tensors, files), metadata, readList };
  } catch (error) {
    await closeAll(files);
    throw error;
  }
}

function missingPart(path: string): IoError {
  const cure = "copy or download it again";
  return new IoError(path, "must be there: it is a part of this split model", { got: "no such file", cure });
}

/** The headers of all parts by path, in order. */
async function openParts(
  path: string,
  header: GgufHeader,
  open: (path: string) => Promise<GgufHeader>,
): Promise<[string, GgufHeader][]> {
  const count = splitNumber(path, header, "split.count", 1);
  if (count <= 1) return [[path, header]];
  const named = PART.exec(path);
  if (named === null || Number(named[2]) !== count) {
    const cure = "give all parts the names that llama-gguf-split gave them";
    throw new FormatError(path, `must have a name that ends with -00001-of-${count} or the like`, { got: path, cure });
  }
  const parts: [string, GgufHeader][] = [];
  for (let part = 1; part <= count; part++) {
    const own = ggufPartPath(path.slice(0, named.index), part, count);
    parts.push([own, own === path ? header : await open(own)]);
  }
  for (const [index, [own, ownHeader]] of parts.entries()) checkPart(own, ownHeader, index, count);
  return parts;
}

function checkPart(path: string, header: GgufHeader, index: number, count: number): void {
  for (const [key, due] of [
    ["split.no", index],
    ["split.count", count],
  ] as const) {
    const got = splitNumber(path, header, key, -1);
    if (got === due) continue;
    throw new FormatError(path, `must have ${key} = ${due}`, { got, cure: "it is a part of another file" });
  }
}

function splitNumber(path: string, { metadata }: GgufHeader, key: string, absent: number): number {
  const entry = metadata.get(key);
  if (entry === undefined) return absent;
  if (entry.type !== "list" && typeof entry.value === "number") return entry.value;
  throw new FormatError(path, `must give ${key} as a whole number`, { got: entry.type });
}

function mergeParts(parts: readonly [string, GgufHeader][]): Map<string, GgufTensor> {
  const [[first, header]] = parts as [[string, GgufHeader]];
  const tensors = new Map<string, GgufTensor>();
  for (const [path, part] of parts) {
    for (const [name, tensor] of part.tensors) {
      if (tensors.has(name)) {
        throw new FormatError(path, `must not hold ${name} again`, { cure: `${tensors.get(name)!.file} holds it` });
      }
      tensors.set(name, tensor);
    }
  }
  const due = splitNumber(first, header, "split.tensors.count", tensors.size);
  if (parts.length === 1 || tensors.size === due) return tensors;
  throw new FormatError(first, `must have ${due} tensors in its parts`, { got: tensors.size });
}

async function readValues(file: ReadableFile | undefined, key: string, entry?: GgufValue): Promise<GgufScalar[]> {
  invariant(file !== undefined, "the reader of metadata is open");
  invariant(entry?.type === "list", `metadata ${key} is a list`);
  if (entry.values !== undefined) return [...entry.values];
  return entry.of === "text" ? readTexts(file, key, entry) : readNumbers(file, entry, VALUE_BYTES[entry.of]);
}

function readTexts(file: ReadableFile, key: string, { count, offset, bytes }: GgufList): Promise<string[]> {
  const cursor = new ByteCursor(file);
  cursor.skip(offset);
  return cursor.texts(count, bytes, `a text of ${key}`);
}

async function readNumbers(file: ReadableFile, list: GgufList, size: number): Promise<GgufScalar[]> {
  const read = await file.read(list.offset, list.bytes);
  if (read.length < list.bytes) {
    throw new FormatError(file.path, `must hold ${list.bytes} bytes`, { offset: list.offset, got: read.length });
  }
  const view = new DataView(read.buffer, read.byteOffset, read.byteLength);
  const { of } = list;
  invariant(of !== "text", "a list of numbers");
  return Array.from({ length: list.count }, (_, i) => readNumber(view, i * size, of));
}
