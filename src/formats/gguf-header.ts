/**
 * The header of a GGUF file: metadata, then what each tensor is and where it begins. Long lists, such as a vocabulary,
 * are passed over and remembered by their place. A header may come from anywhere, so that nothing in it is believed
 * before it is checked.
 *
 * **Source:** ggml-org/ggml docs/gguf.md and src/gguf.cpp (rules).
 */

import { FormatError } from "../core/errors.ts";
import { ByteCursor } from "./byte-cursor.ts";
import type { ReadableFile } from "./file-port.ts";
import {
  GGUF_TYPES,
  GGUF_VALUE_TYPES,
  ggufBytes,
  ggufTypeOf,
  readNumber,
  VALUE_BYTES,
  type GgufNumberType,
  type GgufScalar,
  type GgufScalarType,
  type GgufType,
} from "./gguf-types.ts";
import type { StoredTensor } from "./stored-tensor.ts";

export interface GgufTensor extends StoredTensor {
  readonly dtype: GgufType;
}

/** A list of values of one type, at a place of the file. */
export interface GgufList {
  readonly type: "list";
  readonly of: GgufScalarType;
  readonly count: number;
  /** First byte of the first value, counted from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
  /** The values of a short list of numbers. */
  readonly values: readonly GgufScalar[] | undefined;
}

export type GgufValue = { readonly type: GgufScalarType; readonly value: GgufScalar } | GgufList;

export interface GgufHeader {
  readonly alignment: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** Tensors in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

const MAGIC = 0x46554747; // "GGUF"
const VERSION = 3;
/** The largest vocabularies make headers of some 15 MB; without a limit, a list of texts could lead through a whole file. */
const MAX_HEADER_BYTES = 2 ** 28;
/** Every released model has under 100 keys; each costs memory here. */
const MAX_METADATA = 2 ** 16;
/** V4-Pro has 145,116 tensors in Hugging Face's layout, in GGUF under 3,000. */
const MAX_TENSORS = 2 ** 20;
/** The longest key of the specification. */
const MAX_KEY_BYTES = 2 ** 16 - 1;
/** ggml allows 63 bytes and other programs over it up to 159. */
const MAX_TENSOR_NAME_BYTES = 255;
/** Chat templates have some 10 kB and licences 100 kB. */
const MAX_TEXT_BYTES = 2 ** 24;
/** The limit of ggml. */
const MAX_AXES = 4;
/** Lists of numbers up to this length are read at once: those with a number for each layer, not those of a vocabulary. */
const MAX_SHORT_LIST = 1024;
const DEFAULT_ALIGNMENT = 32;
/** The largest page of a memory map (64-bit ARM); what is larger is a broken number. */
const MAX_ALIGNMENT = 2 ** 16;
/** The smallest description of a tensor or a value: both counts are checked against the bytes that are left. */
const MIN_METADATA_BYTES = 8 + 4 + 1;
const MIN_TENSOR_BYTES = 8 + 4 + 4 + 8;

/**
 * Reads and checks the header; no tensor is read.
 * @throws FormatError when the file is cut off, of another version, over a limit, not UTF-8, names something twice, or
 * does not describe the bytes that follow without overlap and holes.
 */
export async function readGgufHeader(file: ReadableFile): Promise<GgufHeader> {
  const cursor = new ByteCursor(file, MAX_HEADER_BYTES);
  await checkMagic(cursor, file);
  const tensorCount = await readCount(cursor, MAX_TENSORS, "tensors", MIN_TENSOR_BYTES);
  const metadataCount = await readCount(cursor, MAX_METADATA, "metadata values", MIN_METADATA_BYTES);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < metadataCount; i++) await readEntry(cursor, metadata);
  const alignment = alignmentOf(metadata, cursor);
  const claims = new Map<string, Claim>();
  for (let i = 0; i < tensorCount; i++) await readClaim(cursor, claims, alignment);
  const dataStart = alignUp(cursor.offset(), alignment);
  return { alignment, metadata, tensors: placeTensors(file, claims, dataStart, alignment) };
}

async function checkMagic(cursor: ByteCursor, file: ReadableFile): Promise<void> {
  if (file.bytes < 4 || (await cursor.u32()) !== MAGIC) {
    const rule = "must be a GGUF file, which begins with the letters GGUF";
    throw new FormatError(file.path, rule, { offset: 0, cure: "copy or download it again, or name another file" });
  }
  const version = await cursor.u32();
  if (version === VERSION) return;
  const cure = (version & 0xffff) === 0 ? "it is big-endian; convert it to little-endian" : "convert it again";
  throw new FormatError(file.path, `must be GGUF version ${VERSION}`, { offset: 4, got: version, cure });
}

async function readCount(cursor: ByteCursor, most: number, what: string, minBytes: number): Promise<number> {
  const offset = cursor.offset();
  const count = await cursor.count(most, `must have at most ${most} ${what}`);
  if (count * minBytes <= cursor.left()) return count;
  throw cursor.fault(`must have at most the ${what} that its ${cursor.left()} further bytes can hold`, {
    offset,
    got: count,
  });
}

async function readEntry(cursor: ByteCursor, metadata: Map<string, GgufValue>): Promise<void> {
  const offset = cursor.offset();
  const key = await cursor.text(MAX_KEY_BYTES, "a metadata key");
  if (metadata.has(key)) throw cursor.fault(`must give ${key} once`, { offset });
  const type = await readType(cursor, key);
  if (type === "list") metadata.set(key, await readList(cursor, key));
  else metadata.set(key, { type, value: await readScalar(cursor, key, type) });
}

async function readType(cursor: ByteCursor, key: string): Promise<GgufScalarType | "list"> {
  const offset = cursor.offset();
  const id = await cursor.u32();
  const type = GGUF_VALUE_TYPES[id];
  if (type === undefined) throw cursor.fault(`must give ${key} a known type of value`, { offset, got: id });
  return type;
}

async function readScalar(cursor: ByteCursor, key: string, type: GgufScalarType): Promise<GgufScalar> {
  if (type === "text") return cursor.text(MAX_TEXT_BYTES, key);
  await cursor.need(VALUE_BYTES[type]);
  const { view, at } = cursor.take(VALUE_BYTES[type]);
  return readNumber(view, at, type);
}

async function readList(cursor: ByteCursor, key: string): Promise<GgufList> {
  const start = cursor.offset();
  const of = await readType(cursor, key);
  if (of === "list") throw cursor.fault(`must give ${key} a list without lists in it`, { offset: start });
  const least = of === "text" ? 8 : VALUE_BYTES[of];
  const most = Math.floor(cursor.left() / least);
  const count = await cursor.count(
    most,
    `must give ${key} a list of at most ${most} values, which is all that can follow`,
  );
  const offset = cursor.offset();
  let values: readonly GgufScalar[] | undefined;
  if (of === "text") await cursor.skipTexts(count);
  else if (count > MAX_SHORT_LIST) cursor.skip(count * least);
  else values = await readShortList(cursor, count, of);
  return { type: "list", of, count, offset, bytes: cursor.offset() - offset, values };
}

async function readShortList(cursor: ByteCursor, count: number, of: GgufNumberType): Promise<GgufScalar[]> {
  const size = VALUE_BYTES[of];
  await cursor.need(count * size);
  const { view, at } = cursor.take(count * size);
  return Array.from({ length: count }, (_, i) => readNumber(view, at + i * size, of));
}

function alignmentOf(metadata: ReadonlyMap<string, GgufValue>, cursor: ByteCursor): number {
  const entry = metadata.get("general.alignment");
  if (entry === undefined) return DEFAULT_ALIGNMENT;
  const value = entry.type === "u32" ? (entry.value as number) : 0;
  if (value > 0 && value <= MAX_ALIGNMENT && (value & (value - 1)) === 0) return value;
  const got = entry.type === "list" ? "a list" : entry.value;
  throw cursor.fault(`must give general.alignment as u32, a power of two up to ${MAX_ALIGNMENT}`, { got });
}

/** What the header says of a tensor, before it is placed in the file. */
interface Claim {
  readonly dtype: GgufType;
  readonly shape: readonly number[];
  /** Counted from the first byte behind the header and its padding. */
  readonly begin: number;
  readonly bytes: number;
  /** Where the header says so. */
  readonly saidAt: number;
}

async function readClaim(cursor: ByteCursor, claims: Map<string, Claim>, alignment: number): Promise<void> {
  const saidAt = cursor.offset();
  const name = await cursor.text(MAX_TENSOR_NAME_BYTES, "a tensor's name");
  if (claims.has(name)) throw cursor.fault(`must name ${name} once`, { offset: saidAt });
  const shape = await readShape(cursor, name);
  const dtype = await readTensorType(cursor, name);
  const bytes = ggufBytes(dtype, shape);
  if (bytes === undefined) {
    const { blockElements } = GGUF_TYPES[dtype];
    const rule = `must give ${name} rows of whole ${dtype} blocks (${blockElements}) and a safe number of bytes`;
    throw cursor.fault(rule, { offset: saidAt, got: shape });
  }
  const at = cursor.offset();
  const begin = await cursor.count(Number.MAX_SAFE_INTEGER, `must place ${name} within the file`);
  if (begin % alignment !== 0) {
    throw cursor.fault(`must place ${name} at a multiple of ${alignment}`, { offset: at, got: begin });
  }
  claims.set(name, { dtype, shape, begin, bytes, saidAt });
}

/** The axes, which the file lists innermost first. */
async function readShape(cursor: ByteCursor, name: string): Promise<number[]> {
  const offset = cursor.offset();
  const axes = await cursor.u32();
  if (axes > MAX_AXES) throw cursor.fault(`must give ${name} at most ${MAX_AXES} axes`, { offset, got: axes });
  const shape: number[] = [];
  for (let i = 0; i < axes; i++) {
    shape.push(await cursor.count(Number.MAX_SAFE_INTEGER, `must give ${name} axes of safe whole numbers`));
  }
  return shape.toReversed();
}

async function readTensorType(cursor: ByteCursor, name: string): Promise<GgufType> {
  const offset = cursor.offset();
  const id = await cursor.u32();
  const type = ggufTypeOf(id);
  if (type === undefined) throw cursor.fault(`must give ${name} a known type`, { offset, got: id });
  return type;
}

/** The tensors must fill the rest of the file in some order, each beginning at the next multiple of the alignment. */
function placeTensors(
  file: ReadableFile,
  claims: ReadonlyMap<string, Claim>,
  dataStart: number,
  alignment: number,
): Map<string, GgufTensor> {
  const ordered = [...claims].toSorted(([, a], [, b]) => a.begin - b.begin || a.bytes - b.bytes);
  const tensors = new Map<string, GgufTensor>();
  let end = 0;
  for (const [name, { dtype, shape, begin, bytes, saidAt }] of ordered) {
    const due = alignUp(end, alignment);
    if (begin !== due) {
      const rule = `must place ${name} right after the tensor before it, at ${due} of the data`;
      throw new FormatError(file.path, rule, { offset: saidAt, got: begin });
    }
    end = begin + bytes;
    tensors.set(name, { dtype, shape, offset: dataStart + begin, bytes, file: file.path });
  }
  checkEnd(file, dataStart + end, alignment, tensors.size);
  return tensors;
}

/** The last tensor may be padded, and so may a header without tensors. */
function checkEnd(file: ReadableFile, end: number, alignment: number, tensors: number): void {
  if (tensors > 0 && end > file.bytes) {
    throw new FormatError(file.path, `must have ${end} bytes`, {
      offset: file.bytes,
      got: file.bytes,
      cure: "the file is cut off; copy or download it again",
    });
  }
  if (file.bytes <= alignUp(end, alignment)) return;
  throw new FormatError(file.path, `must end with the last tensor, at byte ${end}`, { offset: end, got: file.bytes });
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
