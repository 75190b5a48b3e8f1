/**
 * Token files: a split of a corpus, tokenised once. Two files per split, both little-endian and with a header of 64 bytes:
 *
 * | bytes | header field |
 * | ---: | --- |
 * | 8 | magic: `FATHOMTK` for tokens, `FATHOMIX` for the index |
 * | 4 | u32 format version |
 * | 4 | u32 bytes per entry: 2 or 4 for tokens, 16 for the index |
 * | 8 | u64 entries in this file |
 * | 8 | u64 UTF-8 bytes of the split's text |
 * | 32 | SHA-256 of all documents of the corpus and the tokenizer's id: equal in the files of one data set |
 *
 * The entries follow: token ids, or per document the u64 position of its first token and the u64 UTF-8 bytes of its text.
 * Files are mapped for reading, and small windows of them copied, so they may be of any size.
 */

import * as fs from "node:fs";
import { FormatError, invariant } from "../core/errors.ts";
import type { TokenStream } from "./batches.ts";
import { openBytes, type FileBytes } from "./file-bytes.ts";

export const SHARD_VERSION = 1;

const HEADER_BYTES = 64;
const INDEX_ENTRY_BYTES = 16;
const WRITE_BUFFER_BYTES = 1 << 20;
const MAGIC = { tokens: "FATHOMTK", index: "FATHOMIX" } as const;

type Kind = keyof typeof MAGIC;

interface Header {
  readonly kind: Kind;
  readonly entryBytes: number;
  readonly entries: number;
  readonly textBytes: number;
  readonly hash: Buffer;
}

/** The path of a split's file: `train.tokens`, `train.index`. */
function shardPath(base: string, kind: Kind): string {
  return `${base}.${kind}`;
}

/** Writes one split, document by document. */
export class ShardWriter {
  readonly #tokens: EntryWriter;
  readonly #index: EntryWriter;
  #textBytes = 0;

  /** @param base - path of the files without their extension. */
  constructor(base: string, vocabSize: number) {
    this.#tokens = new EntryWriter(base, "tokens", vocabSize <= 1 << 16 ? 2 : 4);
    this.#index = new EntryWriter(base, "index", INDEX_ENTRY_BYTES);
  }

  get tokens(): number {
    return this.#tokens.entries;
  }

  /** Adds `bos, ids, eos`. */
  add(ids: ArrayLike<number>, bosId: number, eosId: number, textBytes: number): void {
    this.#index.writeIndex(this.#tokens.entries, textBytes);
    this.#textBytes += textBytes;
    this.#tokens.writeToken(bosId);
    for (let i = 0; i < ids.length; i++) this.#tokens.writeToken(ids[i]!);
    this.#tokens.writeToken(eosId);
  }

  /** Writes the headers and waits until both files are on the disk. */
  finish(hash: Buffer): void {
    this.#tokens.finish(this.#textBytes, hash);
    this.#index.finish(this.#textBytes, hash);
  }

  /** Closes the files; what is not finished has no valid header. */
  [Symbol.dispose](): void {
    this.#tokens.close();
    this.#index.close();
  }
}

/** A file of entries of a fixed size behind a header that is written last. */
class EntryWriter {
  readonly #kind: Kind;
  readonly #entryBytes: number;
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(WRITE_BUFFER_BYTES);
  #used = HEADER_BYTES;
  entries = 0;

  constructor(base: string, kind: Kind, entryBytes: number) {
    this.#kind = kind;
    this.#entryBytes = entryBytes;
    this.#fd = fs.openSync(shardPath(base, kind), "wx");
  }

  writeToken(id: number): void {
    const at = this.#claim();
    if (this.#entryBytes === 2) this.#buffer.writeUInt16LE(id, at);
    else this.#buffer.writeUInt32LE(id, at);
  }

  writeIndex(start: number, textBytes: number): void {
    const at = this.#claim();
    writeU64(this.#buffer, start, at);
    writeU64(this.#buffer, textBytes, at + 8);
  }

  #claim(): number {
    if (this.#used + this.#entryBytes > this.#buffer.length) this.#flush();
    const at = this.#used;
    this.#used += this.#entryBytes;
    this.entries++;
    return at;
  }

  #flush(): void {
    writeAll(this.#fd, this.#buffer.subarray(0, this.#used), null);
    this.#used = 0;
  }

  finish(textBytes: number, hash: Buffer): void {
    this.#flush();
    const [kind, entryBytes, entries] = [this.#kind, this.#entryBytes, this.entries];
    writeAll(this.#fd, encodeHeader({ kind, entryBytes, entries, textBytes, hash }), 0);
    fs.fsyncSync(this.#fd);
  }

  close(): void {
    fs.closeSync(this.#fd);
  }
}

/** @param position - byte offset, or null to append where the last write ended. */
function writeAll(fd: number, bytes: Buffer, position: number | null): void {
  for (let done = 0; done < bytes.length;) {
    done += fs.writeSync(fd, bytes, done, bytes.length - done, position === null ? null : position + done);
  }
}

/** A split's tokens and document index, mapped into memory. */
export class TokenShard implements TokenStream {
  /** Tokens in all. */
  readonly length: number;
  readonly documents: number;
  /** UTF-8 bytes of the text of all documents. */
  readonly textBytes: number;
  /** Hexadecimal SHA-256 of the corpus and the tokenizer. */
  readonly hash: string;
  readonly #tokens: EntryReader;
  readonly #index: EntryReader;

  /**
   * @param base - path of the files without their extension.
   * @throws FormatError when a file is truncated, not a token file, of another version, or not the other's partner.
   */
  constructor(base: string) {
    this.#tokens = new EntryReader(base, "tokens");
    try {
      this.#index = new EntryReader(base, "index");
    } catch (error) {
      this.#tokens.close();
      throw error;
    }
    const [tokens, index] = [this.#tokens.header, this.#index.header];
    if (!tokens.hash.equals(index.hash)) {
      this[Symbol.dispose]();
      throw damaged(shardPath(base, "index"), "must belong to the same data set as its token file");
    }
    this.length = tokens.entries;
    this.documents = index.entries;
    this.textBytes = tokens.textBytes;
    this.hash = tokens.hash.toString("hex");
  }

  read(start: number, count: number): Int32Array {
    const bytes = this.#tokens.read(start, count);
    const wide = this.#tokens.header.entryBytes === 4;
    const ids = new Int32Array(count);
    for (let i = 0; i < count; i++) ids[i] = wide ? bytes.readUInt32LE(4 * i) : bytes.readUInt16LE(2 * i);
    return ids;
  }

  documentStarts(from: number, to: number): number[] {
    const starts: number[] = [];
    for (let number = this.#firstDocumentFrom(from); number < this.documents; number++) {
      const { start } = this.document(number);
      if (start >= to) break;
      starts.push(start);
    }
    return starts;
  }

  /** Position of a document's first token (its BOS) and the UTF-8 bytes of its text. */
  document(number: number): { start: number; textBytes: number } {
    const entry = this.#index.read(number, 1);
    return { start: readU64(entry, 0), textBytes: readU64(entry, 8) };
  }

  /** The number of the first document that starts at or after a position; `documents` when there is none. */
  #firstDocumentFrom(position: number): number {
    let low = 0;
    let high = this.documents;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.document(middle).start < position) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  [Symbol.dispose](): void {
    this.#tokens.close();
    this.#index.close();
  }
}

class EntryReader {
  readonly header: Header;
  readonly #path: string;
  readonly #file: FileBytes;

  constructor(base: string, kind: Kind) {
    this.#path = shardPath(base, kind);
    this.#file = openBytes(this.#path);
    try {
      this.header = this.#readHeader(kind);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #readHeader(kind: Kind): Header {
    const { length } = this.#file;
    const bytes = this.#file.read(0, Math.min(length, HEADER_BYTES));
    const header = bytes.length === HEADER_BYTES ? decodeHeader(bytes, kind) : undefined;
    if (header === undefined) throw damaged(this.#path, `must be a Fathom ${kind} file of version ${SHARD_VERSION}`);
    const expected = HEADER_BYTES + header.entries * header.entryBytes;
    if (length !== expected) throw damaged(this.#path, `must have ${expected} bytes as its header says`, length);
    return header;
  }

  /** The bytes of `count` entries from entry `start`. @throws DisposedError when the file is closed. */
  read(start: number, count: number): Buffer {
    const { entries, entryBytes } = this.header;
    invariant(start >= 0 && count >= 0 && start + count <= entries, "a read lies inside its token file");
    return this.#file.read(HEADER_BYTES + start * entryBytes, count * entryBytes);
  }

  close(): void {
    this.#file[Symbol.dispose]();
  }
}

function damaged(file: string, what: string, got?: unknown): FormatError {
  return new FormatError(file, what, {
    ...(got === undefined ? {} : { got }),
    cure: "delete its folder and run again",
  });
}

function encodeHeader(header: Header): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write(MAGIC[header.kind], 0, "latin1");
  bytes.writeUInt32LE(SHARD_VERSION, 8);
  bytes.writeUInt32LE(header.entryBytes, 12);
  writeU64(bytes, header.entries, 16);
  writeU64(bytes, header.textBytes, 24);
  header.hash.copy(bytes, 32);
  return bytes;
}

/** Undefined when the bytes are no header of this kind and version. */
function decodeHeader(bytes: Buffer, kind: Kind): Header | undefined {
  const entryBytes = bytes.readUInt32LE(12);
  const known = kind === "index" ? entryBytes === INDEX_ENTRY_BYTES : entryBytes === 2 || entryBytes === 4;
  if (bytes.toString("latin1", 0, 8) !== MAGIC[kind] || bytes.readUInt32LE(8) !== SHARD_VERSION || !known)
    return undefined;
  return { kind, entryBytes, entries: readU64(bytes, 16), textBytes: readU64(bytes, 24), hash: bytes.subarray(32, 64) };
}

function writeU64(buffer: Buffer, value: number, at: number): void {
  buffer.writeBigUInt64LE(BigInt(value), at);
}

function readU64(buffer: Buffer, at: number): number {
  return Number(buffer.readBigUInt64LE(at));
}
