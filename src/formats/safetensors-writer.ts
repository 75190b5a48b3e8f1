/** Writes a safetensors file as a stream, whole or not at all. */

import { invariant } from "../core/errors.ts";
import { writeWhole, type FilePort } from "./file-port.ts";
import { byteLength, encodeHeader, layoutOrder, type TensorShape } from "./safetensors-header.ts";

/** A tensor to write; `chunks` is called once, when its bytes are due, and must yield exactly its bytes in order. */
export interface TensorSource extends TensorShape {
  readonly chunks: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/**
 * Writes tensors under a temporary name, waits until they are on the disk, and renames; when it fails, what stood under
 * `path` still stands. Data begin at a multiple of 64 bytes; see `layoutOrder` for the order.
 * @throws IoError when the disk refuses.
 */
export async function writeSafetensors(
  port: FilePort,
  path: string,
  tensors: readonly TensorSource[],
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Promise<void> {
  const ordered = layoutOrder(tensors);
  await writeWhole(port, path, fileChunks(ordered, encodeHeader(ordered, metadata)));
}

async function* fileChunks(tensors: readonly TensorSource[], header: Uint8Array): AsyncGenerator<Uint8Array> {
  yield header;
  for (const { name, dtype, shape, chunks } of tensors) {
    let left = byteLength(dtype, shape);
    for await (const chunk of chunks()) {
      left -= chunk.byteLength;
      yield chunk;
    }
    invariant(left === 0, `tensor ${name} yields exactly its bytes, ${left} left`);
  }
}
