/** A dense row-major view: storage, offset, shape, dtype. Values are never changed in place; state is `Parameter`. */

import { type DType, bytesOf, fromBf16Bits } from "../core/dtype.ts";
import { ShapeError, invariant } from "../core/errors.ts";
import type { Handle, Operand } from "../kernels/index.ts";
import type { Storage } from "./storage.ts";

export type Shape = readonly number[];

export function sizeOf(shape: Shape): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

/** Copies between JavaScript and a backend go in windows of this many bytes. */
const WINDOW_BYTES = 64 * 2 ** 20;

export class Tensor implements Operand {
  readonly storage: Storage;
  readonly shape: Shape;
  readonly dtype: DType;
  /** In elements. */
  readonly offset: number;
  readonly size: number;

  constructor(storage: Storage, shape: Shape, dtype: DType, offset = 0) {
    this.storage = storage;
    this.shape = shape;
    this.dtype = dtype;
    this.offset = offset;
    this.size = sizeOf(shape);
    invariant(bytesOf(dtype, offset + this.size) <= storage.bytes, `view ${storage.label} stays inside its storage`);
  }

  get handle(): Handle {
    return this.storage.handle;
  }

  get bytes(): number {
    return bytesOf(this.dtype, this.size);
  }

  /** Rows when all but the last dimension are flattened. */
  get rows(): number {
    return this.size / this.columns;
  }

  get columns(): number {
    return this.shape.at(-1) ?? 1;
  }

  /** The same values under another shape. @throws ShapeError when the sizes differ. */
  reshape(shape: Shape): Tensor {
    if (sizeOf(shape) !== this.size) throw new ShapeError("reshape", `${this.size} elements`, shape);
    return new Tensor(this.storage, shape, this.dtype, this.offset);
  }

  /** A view onto `shape` elements that start `offset` elements into this one. */
  view(offset: number, shape: Shape): Tensor {
    if (offset + sizeOf(shape) > this.size)
      throw new ShapeError("view", `at most ${this.size} elements`, [offset, ...shape]);
    return new Tensor(this.storage, shape, this.dtype, this.offset + offset);
  }

  /** Copies values in. For filling fresh tensors and loading state. */
  write(values: Float32Array | Float64Array | Int32Array | Uint16Array, at = 0): void {
    const width = bytesOf(this.dtype, 1);
    if (values.BYTES_PER_ELEMENT !== width || at + values.length > this.size) {
      throw new ShapeError(`write ${this.storage.label}`, `${this.size - at} elements of ${width} bytes at most`, [
        values.length,
        values.BYTES_PER_ELEMENT,
      ]);
    }
    this.writeBytes(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), at * width);
  }

  /** Copies raw bytes in, `at` bytes from the start. */
  writeBytes(bytes: Uint8Array, at = 0): void {
    const start = bytesOf(this.dtype, this.offset) + at;
    for (let from = 0; from < bytes.length; from += WINDOW_BYTES) {
      this.storage.backend.write(this.handle, start + from, bytes.subarray(from, from + WINDOW_BYTES));
    }
  }

  /** Raw bytes of `length` bytes from `at`. Reads of at most 64 MiB. */
  readBytes(at = 0, length: number = this.bytes - at): Uint8Array {
    return this.storage.backend.readSync(this.handle, bytesOf(this.dtype, this.offset) + at, length);
  }

  /** The values, through the backend's asynchronous read. f32, f64 or i32. */
  async read(): Promise<Float32Array | Float64Array | Int32Array> {
    const bytes = await this.storage.backend.read(this.handle, bytesOf(this.dtype, this.offset), this.bytes);
    return typedView(this.dtype, bytes);
  }
}

/** Sees bytes of a backend, which are a copy of their own at the start of a buffer, as numbers. */
function typedView(dtype: DType, bytes: Uint8Array): Float32Array | Float64Array | Int32Array {
  const { buffer, byteOffset } = bytes;
  const length = bytes.byteLength / bytesOf(dtype, 1);
  if (dtype === "f32") return new Float32Array(buffer, byteOffset, length);
  if (dtype === "f64") return new Float64Array(buffer, byteOffset, length);
  if (dtype === "i32") return new Int32Array(buffer, byteOffset, length);
  invariant(dtype === "bf16", `a tensor of ${dtype} is read as bytes`);
  return Float32Array.from(new Uint16Array(buffer, byteOffset, length), fromBf16Bits);
}
