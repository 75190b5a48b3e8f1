/** Reading of text files of any size with constant memory: as pieces of a limited size, or line by line. */

import { isUtf8 } from "node:buffer";
import * as fs from "node:fs/promises";
import { FormatError } from "../core/errors.ts";
import { diskError } from "../formats/node.ts";

const CHUNK_BYTES = 1 << 20;
/** A line is held in memory as a whole; longer ones mean that the file is not line-based. */
const MAX_LINE_BYTES = 1 << 26;
const NEWLINE = 0x0a;
const BYTE_ORDER_MARK = "\u{feff}";

/**
 * The file's text in pieces of at most `maxBytes`, cut at the end of a line, else after a space, else between characters.
 *
 * @throws FormatError with the byte offset at the first NUL byte or invalid UTF-8: the file is not text.
 */
export async function* readPieces(file: string, maxBytes: number): AsyncGenerator<string> {
  const buffer = Buffer.allocUnsafe(maxBytes + 1);
  let held = 0;
  let offset = 0;
  for await (const chunk of readChunks(file, () => buffer.subarray(held))) {
    held += chunk.length;
    if (held <= maxBytes) continue;
    const end = cutPoint(buffer.subarray(0, maxBytes));
    yield decode(buffer.subarray(0, end), file, offset);
    buffer.copyWithin(0, end, held);
    held -= end;
    offset += end;
  }
  if (held > 0) yield decode(buffer.subarray(0, held), file, offset);
}

/**
 * The file's lines without their ends, numbered from 1. The last line may lack its end.
 *
 * @throws FormatError with the byte offset when the file is not text, or a line is longer than 64 MiB.
 */
export async function* readLines(file: string): AsyncGenerator<{ text: string; number: number }> {
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  let offset = 0;
  let number = 0;
  const take = (last: Buffer): { text: string; number: number } => {
    const line = pending.length === 0 ? last : Buffer.concat([...pending, last]);
    const text = decode(line, file, offset);
    offset += line.length + 1;
    [pending, pendingBytes] = [[], 0];
    return { text, number: ++number };
  };
  const chunkBuffer = Buffer.allocUnsafe(CHUNK_BYTES);
  for await (const chunk of readChunks(file, () => chunkBuffer)) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      yield take(chunk.subarray(start, end));
      start = end + 1;
    }
    pending.push(Buffer.from(chunk.subarray(start)));
    pendingBytes += chunk.length - start;
    if (pendingBytes > MAX_LINE_BYTES) {
      throw new FormatError(file, `a line must have at most ${MAX_LINE_BYTES} bytes`, {
        ...{ offset, got: pendingBytes },
        cure: "divide its text into several lines, or rename the file to .txt if it is plain text",
      });
    }
  }
  if (pendingBytes > 0) yield take(Buffer.alloc(0));
}

/** Reads the file into the room that `room` offers, until its end. */
async function* readChunks(file: string, room: () => Buffer): AsyncGenerator<Buffer> {
  let handle: fs.FileHandle | undefined;
  try {
    handle = await fs.open(file);
    for (;;) {
      const buffer = room();
      const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, CHUNK_BYTES));
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } catch (error) {
    throw diskError(file, "must be a readable file", error);
  } finally {
    await handle?.close();
  }
}

/** Where to cut a full buffer of text: after the last newline, else the last space, else before the last character. */
function cutPoint(buffer: Buffer): number {
  const newline = buffer.lastIndexOf(NEWLINE) + 1;
  if (newline > 0) return newline;
  const space = buffer.lastIndexOf(0x20) + 1;
  if (space > 0) return space;
  for (let end = buffer.length - 1; end > Math.max(0, buffer.length - 4); end--) {
    if ((buffer[end]! & 0xc0) !== 0x80) return end;
  }
  return buffer.length;
}

function decode(bytes: Buffer, file: string, offset: number): string {
  const nul = bytes.indexOf(0);
  if (nul >= 0) throw notText(file, offset + nul, "a NUL byte");
  if (!isUtf8(bytes)) throw notText(file, offset + validPrefix(bytes), "invalid UTF-8");
  const text = bytes.toString("utf8");
  return offset === 0 && text.startsWith(BYTE_ORDER_MARK) ? text.slice(1) : text;
}

function notText(file: string, offset: number, what: string): FormatError {
  const cure = "give text files (.txt or .jsonl), not binary or compressed ones";
  return new FormatError(file, `must be UTF-8 text, holds ${what}`, { offset, cure });
}

/** The number of bytes before the first character that is not valid UTF-8; bisects the whole characters. */
function validPrefix(bytes: Buffer): number {
  let valid = 0;
  let end = bytes.length;
  while (end - valid > 4) {
    let middle = valid + Math.floor((end - valid) / 2);
    while (middle > valid && (bytes[middle]! & 0xc0) === 0x80) middle--;
    if (middle === valid) break;
    if (isUtf8(bytes.subarray(valid, middle))) valid = middle;
    else end = middle;
  }
  for (let length = 1; length <= 4 && valid + length <= bytes.length; length++) {
    if (isUtf8(bytes.subarray(valid, valid + length))) [valid, length] = [valid + length, 0];
  }
  return valid;
}
