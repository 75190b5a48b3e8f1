/** Values of checkpoint tensors of every plain type and of types with scales, decoded in windows. */

import { bytesOf, toBf16Bits, type DType } from "../core/dtype.ts";
import { UnsupportedError } from "../core/errors.ts";
import { e4m3Table, f16Table } from "../core/float-formats.ts";
import type { OpenTensors, SafetensorsDType, StoredTensor } from "../formats/index.ts";
import { sizeOf, type Tensor } from "../tensor/index.ts";
import type { StoredPart } from "./places.ts";
import { isScaled, scaleOf, type ScalePart } from "./stored-scale.ts";

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
  const table = part.tensor.dtype === "I8" ? signedBytes() : e4m3Table();
  const { columns, rows } = into;
  const step = Math.max(1, Math.floor(WINDOW_VALUES / columns));
  for (let row = 0; row < rows; row += step) {
    const bytes = await open.read(part.name, part.at + row * columns, Math.min(step, rows - row) * columns);
    storeValues(into, scaledRows(bytes, table, { scale, scales, columns, firstRow: row }), row * columns);
  }
}

interface RowScales {
  readonly scale: ScalePart;
  readonly scales: Float32Array;
  readonly columns: number;
  readonly firstRow: number;
}

function scaledRows(bytes: Uint8Array, table: Float32Array, { scale, scales, columns, firstRow }: RowScales) {
  const out = new Float32Array(bytes.length);
  const perRow = scale.part.shape[1]!;
  for (let row = 0; row * columns < bytes.length; row++) {
    const own = Math.floor((scale.skip + firstRow + row) / scale.rows) * perRow;
    for (let block = 0; block < perRow; block++) {
      const factor = scales[own + block]!;
      const end = row * columns + Math.min(columns, (block + 1) * scale.columns);
      for (let i = row * columns + block * scale.columns; i < end; i++) out[i] = table[bytes[i]!]! * factor;
    }
  }
  return out;
}

function signedBytes(): Float32Array {
  return Float32Array.from({ length: 256 }, (_, byte) => (byte < 128 ? byte : byte - 256));
}

/** The values of a small tensor of a plain type. */
export function readVector(open: Open, part: StoredPart): Promise<Float32Array> {
  return readPlain(open, part, 0, sizeOf(part.shape));
}
