/** The bytes of a file that does not change: mapped into memory, or read by position where the native library is not built. */

import * as fs from "node:fs";
import { DisposedError, UnsupportedError } from "../core/errors.ts";
import { diskError } from "../formats/node.ts";
import { createNativeBackend, type NativeBackend } from "../kernels/node.ts";

export interface FileBytes extends Disposable {
  /** Bytes in all. */
  readonly length: number;
  /** A copy of a range that lies inside the file. @throws DisposedError after the end, IoError when the disk refuses. */
  read(offset: number, length: number): Buffer;
}

/** @throws IoError when there is no such file, or it cannot be read. */
export function openBytes(path: string, native: NativeBackend | null = nativeBackend()): FileBytes {
  try {
    return native === null ? positioned(path) : mapped(path, native);
  } catch (error) {
    throw diskError(path, "must be a readable file", error);
  }
}

/** One thread: it maps and copies, and multiplies nothing. */
function nativeBackend(): NativeBackend | null {
  try {
    return createNativeBackend({ threads: 1 });
  } catch (error) {
    if (error instanceof UnsupportedError) return null;
    throw error;
  }
}

/** The pages that are read come from the system's file cache and stay in it; no memory is taken for them. */
function mapped(path: string, native: NativeBackend): FileBytes {
  const length = fs.statSync(path).size;
  let handle: number | undefined = native.mapFile(path, 0, length);
  return {
    length,
    read: (offset, count) => {
      if (handle === undefined) throw new DisposedError(path);
      const { buffer, byteOffset, byteLength } = native.readSync(handle, offset, count);
      return Buffer.from(buffer, byteOffset, byteLength);
    },
    [Symbol.dispose]: () => {
      if (handle !== undefined) native.free(handle);
      handle = undefined;
    },
  };
}

function positioned(path: string): FileBytes {
  let fd: number | undefined = fs.openSync(path, "r");
  return {
    length: fs.fstatSync(fd).size,
    read: (offset, count) => {
      if (fd === undefined) throw new DisposedError(path);
      try {
        return readAll(fd, offset, count);
      } catch (error) {
        throw diskError(path, "must be readable", error);
      }
    },
    [Symbol.dispose]: () => {
      if (fd !== undefined) fs.closeSync(fd);
      fd = undefined;
    },
  };
}

function readAll(fd: number, offset: number, count: number): Buffer {
  const bytes = Buffer.allocUnsafe(count);
  for (let done = 0; done < count;) {
    const read = fs.readSync(fd, bytes, done, count - done, offset + done);
    if (read === 0) throw new Error("the file has become shorter");
    done += read;
  }
  return bytes;
}
