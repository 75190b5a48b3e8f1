/**
 * The header of a safetensors file: an u64 length (little endian), that many bytes of JSON, then the tensors' bytes
 * without holes. A header may come from anywhere, so that nothing in it is believed before it is checked.
 *
 * **Source:** huggingface/safetensors, README (format) and safetensors/src/tensor.rs (dtypes, limit, rules).
 */

import { FormatError, invariant } from "../core/errors.ts";
import type { ReadableFile } from "./file-port.ts";
import { JsonFault, JsonMembers, skipSpace } from "./json-members.ts";
import type { StoredTensor } from "./stored-tensor.ts";

/** Bits of one element. */
const DTYPE_BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

export type SafetensorsDType = keyof typeof DTYPE_BITS;

export interface SafetensorsTensor extends StoredTensor {
  readonly dtype: SafetensorsDType;
}

export interface SafetensorsHeader {
  /** Tensors in the order of the header's text. */
  readonly tensors: ReadonlyMap<string, SafetensorsTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** The limit of the reference implementation: a header is read whole, and a hostile length must not fill the memory. */
const MAX_HEADER_BYTES = 100_000_000;
const LENGTH_BYTES = 8;
const METADATA = "__metadata__";
/** A dtype, a shape or two offsets have under 100 characters; deep nesting would overflow what prints them. */
const MAX_FIELD = 1000;
/** Tensors begin on a cache line, so that they can be used where the file is mapped. */
const ALIGNMENT = 64;

/** Bytes of a tensor, or undefined when they are not a whole number or not a safe one. */
export function tensorBytes(dtype: SafetensorsDType, shape: readonly number[]): number | undefined {
  const bits = shape.reduce((product, n) => product * n, DTYPE_BITS[dtype]);
  return Number.isSafeInteger(bits) && bits % 8 === 0 ? bits / 8 : undefined;
}

/**
 * Reads and checks the header; no tensor is read.
 * @throws FormatError when the file is too short, or the header is too large, not UTF-8, not JSON, names a tensor twice,
 * or does not describe exactly the bytes that follow.
 */
export async function readSafetensorsHeader(file: ReadableFile): Promise<SafetensorsHeader> {
  const tensors = new Map<string, SafetensorsTensor>();
  const keep: KeepTensor = (name, tensor) => {
    const before = tensors.size;
    return tensors.set(name, tensor).size > before;
  };
  const metadata = await readHeader(file, keep);
  return { tensors, metadata };
}

/** Takes a tensor in the order of the header's text; false when it has this name already. */
export type KeepTensor = (name: string, tensor: SafetensorsTensor) => boolean;

/** As `readSafetensorsHeader`, for a reader with a table of its own: a second one for each shard takes a fifth of the time. */
export async function readHeader(file: ReadableFile, keep: KeepTensor): Promise<Readonly<Record<string, string>>> {
  const prefix = await file.read(0, LENGTH_BYTES);
  if (prefix.length < LENGTH_BYTES) {
    throw new FormatError(file.path, "must be a safetensors file of at least 8 bytes", { offset: 0, got: file.bytes });
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset, LENGTH_BYTES).getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES) {
    throw new FormatError(file.path, `must have a header of at most ${MAX_HEADER_BYTES} bytes`, {
      offset: 0,
      got: length,
      cure: "this is not a safetensors file",
    });
  }
  const dataStart = LENGTH_BYTES + Number(length);
  if (dataStart > file.bytes) throw truncated(file, dataStart);
  const json = await file.read(LENGTH_BYTES, Number(length));
  if (json.length < Number(length)) throw truncated(file, dataStart);
  return parseHeader({ file, text: decodeUtf8(file, json), dataStart, keep });
}

function truncated(file: ReadableFile, expected: number): FormatError {
  return new FormatError(file.path, `must have ${expected} bytes`, {
    offset: file.bytes,
    got: file.bytes,
    cure: "the file is cut off; copy or download it again",
  });
}

interface Source {
  readonly file: ReadableFile;
  readonly text: string;
  readonly dataStart: number;
  readonly keep: KeepTensor;
}

function parseHeader(source: Source): Readonly<Record<string, string>> {
  try {
    return readEntries(source);
  } catch (fault) {
    if (fault instanceof JsonFault) throw faultAt(source.file, source.text, fault.at, fault.message);
    throw fault;
  }
}

function decodeUtf8(file: ReadableFile, json: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
  } catch {
    throw new FormatError(file.path, "must have a header in UTF-8", { offset: LENGTH_BYTES });
  }
}

/** A fault at a character of the header, with its place in the file. */
function faultAt(file: ReadableFile, text: string, at: number, what: string, got?: unknown): FormatError {
  const offset = LENGTH_BYTES + new TextEncoder().encode(text.slice(0, at)).length;
  return new FormatError(file.path, what, { offset, ...(got === undefined ? {} : { got }) });
}

function readEntries({ file, text, dataStart, keep }: Source): Readonly<Record<string, string>> {
  const entries: Entries = { file, text, members: new JsonMembers(text, 0), dataStart, kinds: new Map() };
  const { members } = entries;
  const names: string[] = [];
  const tensors: SafetensorsTensor[] = [];
  let metadata: Readonly<Record<string, string>> | undefined;
  for (let key = members.next(); key !== undefined; key = members.next()) {
    const at = members.at();
    if (key === METADATA) {
      if (metadata !== undefined) throw new JsonFault(`must name ${key} once`, at);
      metadata = parseMetadata(entries);
      continue;
    }
    const tensor = readTensor(entries, key);
    if (!keep(key, tensor)) throw new JsonFault(`must name ${key} once`, at);
    names.push(key);
    tensors.push(tensor);
  }
  const rest = skipSpace(text, members.at());
  if (rest < text.length) throw new JsonFault("must end with the object of the header", rest);
  checkCover(file, names, tensors, dataStart);
  return metadata ?? {};
}

/** What is read, and how far; types and shapes repeat from expert to expert, so a tensor of each is kept by its text. */
interface Entries {
  readonly file: ReadableFile;
  readonly text: string;
  readonly members: JsonMembers;
  readonly dataStart: number;
  readonly kinds: Map<string, SafetensorsTensor>;
}

function parseMetadata({ file, text, members }: Entries): Readonly<Record<string, string>> {
  const value = members.value(text.length);
  const isTexts =
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((entry) => typeof entry === "string");
  if (!isTexts) throw faultAt(file, text, members.at(), "must have a __metadata__ of texts");
  return value as Readonly<Record<string, string>>;
}

/** Pieces of an entry as the reference implementation writes it, between them the values. */
const BEFORE_DTYPE = '{"dtype":"';
const BEFORE_SHAPE = '","shape":';
const BEFORE_OFFSETS = ',"data_offsets":[';
const AFTER_OFFSETS = "]}";

/** An entry in the usual order without spaces is parsed as JSON only where it is the first of its type and shape. */
function readTensor(entries: Entries, name: string): SafetensorsTensor {
  const { file, text, members, dataStart, kinds } = entries;
  const dtypeAt = members.at() + BEFORE_DTYPE.length;
  const dtypeEnd = text.indexOf('"', dtypeAt);
  const kindEnd = text.indexOf("]", dtypeEnd) + 1;
  const isUsual =
    text.startsWith(BEFORE_DTYPE, members.at()) &&
    text.startsWith(BEFORE_SHAPE, dtypeEnd) &&
    text.startsWith(BEFORE_OFFSETS, kindEnd);
  if (!isUsual) return parseTensor(entries, name);
  const written = text.slice(dtypeAt, kindEnd);
  const kind = kinds.get(written);
  if (kind === undefined) {
    const tensor = parseTensor(entries, name);
    kinds.set(written, tensor);
    return tensor;
  }
  const beginAt = kindEnd + BEFORE_OFFSETS.length;
  const comma = endOfDigits(text, beginAt);
  const close = endOfDigits(text, comma + 1);
  const begin = wholeNumber(text, beginAt, comma);
  const end = wholeNumber(text, comma + 1, close);
  const isWhole = text[comma] === "," && text.startsWith(AFTER_OFFSETS, close) && Number.isSafeInteger(end);
  if (!isWhole || end - begin !== kind.bytes) return parseTensor(entries, name);
  members.passTo(close + AFTER_OFFSETS.length);
  return { dtype: kind.dtype, shape: kind.shape, offset: dataStart + begin, bytes: kind.bytes, file: file.path };
}

/** Behind the digits of a whole number in JSON, or `at` itself: 0 stands alone. */
function endOfDigits(text: string, at: number): number {
  let end = at;
  for (let code = text.charCodeAt(end); code >= 0x30 && code <= 0x39;) code = text.charCodeAt(++end);
  return end > at + 1 && text[at] === "0" ? at : end;
}

/** The number that digits write. */
function wholeNumber(text: string, start: number, end: number): number {
  let value = 0;
  for (let at = start; at < end; at++) value = 10 * value + text.charCodeAt(at) - 0x30;
  return value;
}

function parseTensor(entries: Entries, name: string): SafetensorsTensor {
  const fields = new JsonMembers(entries.text, entries.members.at());
  const found = new Map<string, unknown>();
  for (let key = fields.next(); key !== undefined; key = fields.next()) {
    if (found.has(key)) throw new JsonFault(`must give ${name} one ${key}`, fields.at());
    found.set(key, fields.value(MAX_FIELD));
  }
  return checkTensor(entries, name, found.get("dtype"), found.get("shape"), found.get("data_offsets"));
}

function checkTensor(
  { file, text, members, dataStart }: Entries,
  name: string,
  dtype: unknown,
  shape: unknown,
  offsets: unknown,
): SafetensorsTensor {
  const fail = (rule: string, got: unknown = "none"): FormatError =>
    faultAt(file, text, members.at(), `must give ${name} ${rule}`, got);
  if (!isDType(dtype)) throw fail("a known dtype", dtype);
  if (!isCounts(shape)) throw fail("a shape of whole numbers", shape);
  if (!isCounts(offsets) || offsets.length !== 2) throw fail("data_offsets of two whole numbers", offsets);
  const [begin, end] = offsets as [number, number];
  const bytes = tensorBytes(dtype, shape);
  if (bytes === undefined || end - begin !== bytes) {
    throw fail(`the bytes of ${dtype} [${shape.join(", ")}] (${bytes ?? "no safe number"})`, end - begin);
  }
  return { dtype, shape, offset: dataStart + begin, bytes, file: file.path };
}

/** The tensors must fill the rest of the file, one after the other, in whatever order the header names them. */
function checkCover(file: ReadableFile, names: string[], tensors: SafetensorsTensor[], dataStart: number): void {
  let end = dataStart;
  for (const i of orderOf(tensors)) {
    const { offset, bytes } = tensors[i]!;
    if (offset !== end) {
      throw new FormatError(file.path, `must place ${names[i]!} right after the tensor before it, at byte ${end}`, {
        offset: Math.min(offset, end),
        got: offset,
      });
    }
    end += bytes;
  }
  if (end > file.bytes) throw truncated(file, end);
  if (end < file.bytes) {
    throw new FormatError(file.path, `must end with the last tensor, at byte ${end}`, { offset: end, got: file.bytes });
  }
}

/** Places in the list by first byte. */
function orderOf(tensors: readonly SafetensorsTensor[]): Iterable<number> {
  const isOrdered = tensors.every((tensor, i) => i === 0 || tensors[i - 1]!.offset <= tensor.offset);
  if (isOrdered && !tensors.some(({ bytes }) => bytes === 0)) return tensors.keys();
  const place = (a: number, b: number): number =>
    tensors[a]!.offset - tensors[b]!.offset || tensors[a]!.bytes - tensors[b]!.bytes;
  return [...tensors.keys()].toSorted(place);
}

function isDType(value: unknown): value is SafetensorsDType {
  return typeof value === "string" && Object.hasOwn(DTYPE_BITS, value);
}

function isCounts(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

/** What a header says about one tensor, before offsets are known. */
export interface TensorShape {
  readonly name: string;
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
}

/**
 * The order in which tensors are laid out: those that fill whole cache lines first, then by falling element size. So
 * every tensor begins at a multiple of its element, and the former at a multiple of 64 bytes, without holes.
 */
export function layoutOrder<T extends TensorShape>(tensors: readonly T[]): T[] {
  const rank = ({ dtype, shape }: T): number =>
    byteLength(dtype, shape) % ALIGNMENT === 0 ? 2 * ALIGNMENT : DTYPE_BITS[dtype];
  return tensors.toSorted((a, b) => rank(b) - rank(a));
}

/** The length and the JSON of a header, padded with spaces so that the first tensor is aligned. */
export function encodeHeader(tensors: readonly TensorShape[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const names = new Set(tensors.map((tensor) => tensor.name));
  invariant(names.size === tensors.length && !names.has(METADATA), "every tensor has a name of its own");
  let end = 0;
  const entries = tensors.map(({ name, dtype, shape }): [string, unknown] => {
    const begin = end;
    end += byteLength(dtype, shape);
    return [name, { dtype, shape, data_offsets: [begin, end] }];
  });
  const json = JSON.stringify(Object.fromEntries([[METADATA, metadata], ...entries]));
  const text = new TextEncoder().encode(json);
  const total = Math.ceil((LENGTH_BYTES + text.length) / ALIGNMENT) * ALIGNMENT;
  const header = new Uint8Array(total).fill(" ".charCodeAt(0));
  new DataView(header.buffer).setBigUint64(0, BigInt(total - LENGTH_BYTES), true);
  header.set(text, LENGTH_BYTES);
  return header;
}

export function byteLength(dtype: SafetensorsDType, shape: readonly number[]): number {
  const bytes = tensorBytes(dtype, shape);
  invariant(bytes !== undefined, `a tensor ${dtype} [${shape.join(", ")}] has a whole number of bytes`);
  return bytes;
}
