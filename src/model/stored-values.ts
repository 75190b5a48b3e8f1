/** Values of checkpoint tensors of every plain type and of types with scales, decoded in windows. */

import { bytesOf, toBf16Bits, type DType } from "../core/dtype.ts";
import { UnsupportedError } from "../core/errors.ts";
import { f16Table } from "../core/float-formats.ts";
import { decodeFp8Rows, decodeInt8Rows } from "../core/index.ts";
import type { OpenTensors, SafetensorsDType, StoredTensor } from "../formats/index.ts";
import { sizeOf, type Tensor } from "../tensor/index.ts";
import type { StoredPart } from "./places.ts";
import { isScaled, scaleOf } from "./stored-scale.ts";

type Open = OpenTensors<StoredTensor>;

/** Bytes that are in JavaScript memory at a time. */
export const WINDOW_BYTES = 16 * 2 ** 20;
const WINDOW_VALUES = WINDOW_BYTES / 4;

/** What each plain type makes of its bytes. */
const DECODERS: Readonly<Record<string, { bytes: number; decode: (bytes: Uint8Array) => Float32Array }>> = {
  F32: { bytes: 4, decode: (bytes) => new Float32Array(aligned(bytes)) },
  F16: {
    bytes: 2,
    decode: (bytes) => {
      const table = f16Table();
      return Float32Array.from(new Uint16Array(aligned(bytes)), (half) => table[half]!);
    },
  },
  BF16: {
    bytes: 2,
    decode: (bytes) => {
      const bits = Uint32Array.from(new Uint16Array(aligned(bytes)), (half) => half * 0x10000);
      return new Float32Array(bits.buffer);
    },
  },
};

function aligned(bytes: Uint8Array): ArrayBuffer {
  return bytes.slice().buffer;
}

/** What safetensors calls the types whose values it holds as they are. */
export const PLAIN_TYPES: Readonly<Partial<Record<DType, SafetensorsDType>>> = {
  f32: "F32",
  f64: "F64",
  bf16: "BF16",
  i32: "I32",
};

/** Fills a tensor with the bytes of part of a stored one; the types are the same. */
export async function readRaw(open: Open, { name, at }: Pick<StoredPart, "name" | "at">, into: Tensor): Promise<void> {
  const from = bytesOf(into.dtype, at);
  for (let done = 0; done < into.bytes; done += WINDOW_BYTES) {
    into.writeBytes(await open.read(name, from + done, Math.min(WINDOW_BYTES, into.bytes - done)), done);
  }
}

/**
 * Fills a tensor of f32, f64 or bf16 from part of a stored one.
 *
 * @throws UnsupportedError for a type that is not decoded, FormatError when scales are not there.
 */
export async function readValues(open: Open, part: StoredPart, into: Tensor): Promise<void> {
  const { dtype } = part.tensor;
  if (PLAIN_TYPES[into.dtype] === dtype) return readRaw(open, part, into);
  if (isScaled(dtype)) return readScaled(open, part, into);
  for (let at = 0; at < into.size; at += WINDOW_VALUES) {
    const values = await readPlain(open, part, at, Math.min(WINDOW_VALUES, into.size - at));
    storeValues(into, values, at);
  }
}

async function readPlain(open: Open, part: StoredPart, from: number, count: number): Promise<Float32Array> {
  const { name, tensor, at } = part;
  const decoder = DECODERS[tensor.dtype];
  if (decoder === undefined) {
    const rule = "must be stored in a type that is decoded";
    throw new UnsupportedError(`${tensor.file} ${name}`, rule, tensor.dtype, Object.keys(DECODERS));
  }
  return decoder.decode(await open.read(name, (at + from) * decoder.bytes, count * decoder.bytes));
}

/** Writes values into a tensor of f32, f64 or bf16, rounded to nearest. */
function storeValues(into: Tensor, values: Float32Array, at: number): void {
  if (into.dtype === "bf16") into.write(Uint16Array.from(values, toBf16Bits), at);
  else into.write(into.dtype === "f64" ? Float64Array.from(values) : values, at);
}

async function readScaled(open: Open, part: StoredPart, into: Tensor): Promise<void> {
  const scale = scaleOf(part, open.tensors);
  const scales = await readVector(open, scale.part);
  const { columns, rows } = into;
  const groups = scale.part.shape[1]!;
  const step = Math.max(1, Math.floor(WINDOW_VALUES / columns));
  for (let row = 0; row < rows; row += step) {
    const count = Math.min(step, rows - row);
    const bytes = await open.read(part.name, part.at + row * columns, count * columns);
    const values = new Float32Array(bytes.length);
    if (part.tensor.dtype === "I8")
      decodeInt8Rows(bytes, scales.subarray(row * groups, (row + count) * groups), values);
    else decodeFp8Rows(bytes, scales, columns, scale.skip + row, values);
    storeValues(into, values, row * columns);
  }
}

/** The values of a small tensor of a plain type. */
export function readVector(open: Open, part: StoredPart): Promise<Float32Array> {
  return readPlain(open, part, 0, sizeOf(part.shape));
}
