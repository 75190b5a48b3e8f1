/** Bytes of tensors out of open files, by ranges: what readers of every checkpoint format share. */

import { FormatError, invariant } from "../core/errors.ts";
import type { ReadableFile } from "./file-port.ts";
import type { StoredTensor } from "./stored-tensor.ts";

/** Open tensors; ends with `close`. */
export interface OpenTensors<T extends StoredTensor> {
  readonly tensors: ReadonlyMap<string, T>;
  /**
   * Bytes of a tensor, all of them or `length` from `begin` on, both counted within the tensor.
   * @throws FormatError when the file has become shorter.
   */
  read(name: string, begin?: number, length?: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Reads tensors of files that stay open until `close`; `files` holds them by path. */
export function openRanges<T extends StoredTensor>(
  tensors: ReadonlyMap<string, T>,
  files: Map<string, ReadableFile>,
): OpenTensors<T> {
  return {
    tensors,
    read: (name, begin, length) => readRange(tensors.get(name), files, name, begin, length),
    close: () => closeAll(files),
  };
}

export async function closeAll(files: Map<string, ReadableFile>): Promise<void> {
  for (const file of files.values()) await file.close();
  files.clear();
}

async function readRange(
  tensor: StoredTensor | undefined,
  files: ReadonlyMap<string, ReadableFile>,
  name: string,
  begin = 0,
  length = (tensor?.bytes ?? 0) - begin,
): Promise<Uint8Array> {
  invariant(tensor !== undefined, `tensor ${name} is in the file`);
  invariant(begin >= 0 && length >= 0 && begin + length <= tensor.bytes, `range lies within tensor ${name}`);
  const file = files.get(tensor.file);
  invariant(file !== undefined, `the reader of tensor ${name} is open`);
  const bytes = await file.read(tensor.offset + begin, length);
  if (bytes.length === length) return bytes;
  throw new FormatError(tensor.file, `must hold ${length} bytes of ${name}`, {
    offset: tensor.offset + begin,
    got: bytes.length,
    cure: "the file was cut off while it was read",
  });
}
