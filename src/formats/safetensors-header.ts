/**
 * The header of a safetensors file: an u64 length (little endian), that many bytes of JSON, then the tensors' bytes
 * without holes. A header may come from anywhere, so that nothing in it is believed before it is checked.
 *
 * **Source:** huggingface/safetensors, README (format) and safetensors/src/tensor.rs (dtypes, limit, rules).
 */

import { FormatError, invariant } from "../core/errors.ts";
import type { ReadableFile } from "./file-port.ts";
import { findRepeatedKey } from "./json-keys.ts";

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

export interface TensorInfo {
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  /** First byte, counted from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

export interface SafetensorsHeader {
  /** Tensors in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** The limit of the reference implementation: a header is read whole, and a hostile length must not fill the memory. */
const MAX_HEADER_BYTES = 100_000_000;
const LENGTH_BYTES = 8;
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
  const prefix = await file.read(0, LENGTH_BYTES);
  if (prefix.length < LENGTH_BYTES) {
    throw new FormatError(file.path, "must be a safetensors file of at least 8 bytes", { got: file.bytes });
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
  const json = await file.read(LENGTH_BYTES, Number(length));
  if (json.length < Number(length)) throw truncated(file, dataStart);
  return parseHeader(file, json, dataStart);
}

function truncated(file: ReadableFile, expected: number): FormatError {
  return new FormatError(file.path, `must have ${expected} bytes`, {
    offset: file.bytes,
    got: file.bytes,
    cure: "the file is cut off; copy or download it again",
  });
}

function parseHeader(file: ReadableFile, json: Uint8Array, dataStart: number): SafetensorsHeader {
  const fail = (what: string, got?: unknown): FormatError =>
    new FormatError(file.path, what, { offset: LENGTH_BYTES, ...(got === undefined ? {} : { got }) });
  const text = decodeUtf8(json, fail);
  const entries = parseJsonObject(text, fail);
  const { __metadata__: metadata = {} } = entries;
  if (!isTexts(metadata)) throw fail("must have a __metadata__ of texts", metadata);

  const tensors = Object.keys(entries)
    .filter((name) => name !== "__metadata__")
    .map((name) => [name, parseTensor(name, entries[name], dataStart, fail)] as const);
  tensors.sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes);
  checkCover(file, tensors, dataStart);
  return { tensors: new Map(tensors), metadata };
}

type Fail = (what: string, got?: unknown) => FormatError;

function decodeUtf8(json: Uint8Array, fail: Fail): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
  } catch {
    throw fail("must have a header in UTF-8");
  }
}

function parseJsonObject(text: string, fail: Fail): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw fail(`must have a header in JSON (${(cause as Error).message})`);
  }
  if (!isObject(value) || !text.startsWith("{")) throw fail("must have a JSON object as header");
  const repeated = findRepeatedKey(text);
  if (repeated !== undefined) throw fail("must name each key once", repeated);
  return value;
}

function parseTensor(name: string, entry: unknown, dataStart: number, fail: Fail): TensorInfo {
  if (!isObject(entry)) throw fail(`must describe ${name} by an object`, entry);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BITS, dtype)) {
    throw fail(`must give ${name} a known dtype`, dtype ?? "none");
  }
  if (!isCounts(shape)) throw fail(`must give ${name} a shape of whole numbers`, shape ?? "none");
  if (!isCounts(offsets) || offsets.length !== 2) {
    throw fail(`must give ${name} data_offsets of two whole numbers`, offsets ?? "none");
  }
  const [begin, end] = offsets as [number, number];
  const bytes = tensorBytes(dtype as SafetensorsDType, shape);
  if (bytes === undefined || end - begin !== bytes) {
    throw fail(
      `must give ${name} the bytes of ${dtype} [${shape.join(", ")}] (${bytes ?? "no safe number"})`,
      end - begin,
    );
  }
  return { dtype: dtype as SafetensorsDType, shape, offset: dataStart + begin, bytes };
}

/** The tensors must fill the rest of the file, one after the other. */
function checkCover(file: ReadableFile, tensors: readonly (readonly [string, TensorInfo])[], dataStart: number): void {
  let end = dataStart;
  for (const [name, { offset, bytes }] of tensors) {
    if (offset !== end) {
      throw new FormatError(file.path, `must place ${name} right after the tensor before it, at byte ${end}`, {
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

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isTexts(value: unknown): value is Readonly<Record<string, string>> {
  return isObject(value) && Object.values(value).every((text) => typeof text === "string");
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
  invariant(names.size === tensors.length && !names.has("__metadata__"), "every tensor has a name of its own");
  let end = 0;
  const entries = tensors.map(({ name, dtype, shape }): [string, unknown] => {
    const begin = end;
    end += byteLength(dtype, shape);
    return [name, { dtype, shape, data_offsets: [begin, end] }];
  });
  const json = JSON.stringify(Object.fromEntries([["__metadata__", metadata], ...entries]));
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
