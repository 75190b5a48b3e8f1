/**
 * The few file operations that saving and loading need, handed in so that tests can stand in for a disk that is full,
 * slow or torn. `node.ts` has the real one. Every failure is an IoError.
 */

import { FormatError } from "../core/errors.ts";

export interface ReadableFile {
  readonly path: string;
  readonly bytes: number;
  /** Bytes from `offset`; fewer than `length` only where the file ends. */
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

export interface WritableFile {
  /** Appends all bytes; they may be changed once the promise resolves. */
  write(bytes: Uint8Array): Promise<void>;
  /** Resolves when what was written is on the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface FilePort {
  openRead(path: string): Promise<ReadableFile>;
  /** Creates the file, or empties it. */
  openWrite(path: string): Promise<WritableFile>;
  isFile(path: string): Promise<boolean>;
  /** Names in a folder, sorted. */
  list(folder: string): Promise<string[]>;
  /** Creates a folder and its parents; one that exists is fine. */
  makeFolder(path: string): Promise<void>;
  /** Renames a file or folder; a file that stands there is replaced. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file or a folder with its content; one that is absent is fine. */
  remove(path: string): Promise<void>;
  /** Resolves when the names in a folder are on the disk. */
  syncFolder(path: string): Promise<void>;
}

/** The largest published tokenizer.json is about 35 MB; a larger text is something else. */
const MAX_TEXT_BYTES = 256 * 2 ** 20;

/** A file's text. @throws IoError when it cannot be read, FormatError when it is not UTF-8 or over 256 MiB. */
export async function readText(port: FilePort, path: string): Promise<string> {
  const file = await port.openRead(path);
  try {
    if (file.bytes > MAX_TEXT_BYTES) {
      throw new FormatError(path, `must have at most ${MAX_TEXT_BYTES} bytes`, { got: file.bytes });
    }
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.read(0, file.bytes));
  } catch (error) {
    if (error instanceof TypeError) throw new FormatError(path, "must be UTF-8 text");
    throw error;
  } finally {
    await file.close();
  }
}

/**
 * Writes a whole file so that a crash leaves the old one or the new one, never a part.
 *
 * @param mark ends the name of the file while it is unfinished; several processes that write it need one each.
 */
export async function writeWhole(
  port: FilePort,
  path: string,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  mark = ".tmp",
): Promise<void> {
  const temporary = path + mark;
  try {
    const file = await port.openWrite(temporary);
    try {
      for await (const chunk of chunks) await file.write(chunk);
      await file.sync();
    } finally {
      await file.close();
    }
    await port.rename(temporary, path);
    await port.syncFolder(folderOf(path));
  } catch (error) {
    await port.remove(temporary).catch(() => undefined);
    throw error;
  }
}

export function folderOf(path: string): string {
  return path.slice(0, Math.max(0, lastSeparator(path))) || (path.startsWith("/") ? "/" : ".");
}

function lastSeparator(path: string): number {
  return Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\"));
}
