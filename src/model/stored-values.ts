/** Values of checkpoint tensors of every plain type, of fp8 blocks and of GGUF's blocks, decoded in windows into tensors of ours. */

import { bytesOf, toBf16Bits } from "../core/dtype.ts";
import { FormatError, invariant, UnsupportedError } from "../core/errors.ts";
import { f16Table } from "../core/float-formats.ts";
import { decodeFp8Rows, FP8_BLOCK } from "../core/fp8-blocks.ts";
import { decodeBlocks, isBlockType } from "../core/index.ts";
import { ggufBytes, type OpenTensors, type StoredTensor, type TensorReader } from "../formats/index.ts";
import type { Tensor } from "../tensor/index.ts";

/** Bytes that are in JavaScript memory at a time. */
const WINDOW_BYTES = 16 * 2 ** 20;

/** Part of a stored tensor: what fills one tensor of ours. */
export interface StoredPart {
  readonly name: string;
  /** First element. */
  readonly at: number;
}

/** What each type that loads makes of its bytes. */
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

const FP8 = "F8_E4M3";

function aligned(bytes: Uint8Array): ArrayBuffer {
  return bytes.slice().buffer;
}

/** The name of the tensor that holds the scales of an fp8 one. */
export function scaleNameOf(weight: string): string {
  return `${weight}_scale_inv`;
}

/** Whether its values can be read as they are, without conversion. */
function isStoredAs(dtype: string, target: Tensor["dtype"]): boolean {
  return ({ f32: "F32", bf16: "BF16", f64: "F64", i32: "I32" } as const)[target] === dtype;
}

/** Fills a tensor from bytes of the same type. */
export async function readRaw(reader: OpenTensors<StoredTensor>, part: StoredPart, into: Tensor): Promise<void> {
  const from = bytesOf(into.dtype, part.at);
  for (let at = 0; at < into.bytes; at += WINDOW_BYTES) {
    into.writeBytes(await reader.read(part.name, from + at, Math.min(WINDOW_BYTES, into.bytes - at)), at);
  }
}

/**
 * Fills a tensor of f32, f64 or bf16 from part of a stored one.
 *
 * @throws UnsupportedError for a type that does not load, FormatError when the scales of fp8 blocks are not there.
 */
export async function readValues(reader: TensorReader, part: StoredPart, into: Tensor): Promise<void> {
  const { dtype, file } = reader.tensors.get(part.name)!;
  if (isStoredAs(dtype, into.dtype)) return readRaw(reader, part, into);
  if (dtype === FP8) return readFp8(reader, part, into);
  const decoder = DECODERS[dtype];
  if (decoder === undefined) {
    const known = [...Object.keys(DECODERS), FP8];
    throw new UnsupportedError(`${file} ${part.name}`, "must be stored in a type that loads", dtype, known);
  }
  const step = WINDOW_BYTES / 4;
  for (let at = 0; at < into.size; at += step) {
    const count = Math.min(step, into.size - at);
    const bytes = await reader.read(part.name, (part.at + at) * decoder.bytes, count * decoder.bytes);
    storeValues(into, decoder.decode(bytes), at);
  }
}

/** Writes values into a tensor of f32, f64 or bf16, rounded to nearest. */
export function storeValues(into: Tensor, values: Float32Array, at: number): void {
  if (into.dtype === "bf16") into.write(Uint16Array.from(values, toBf16Bits), at);
  else into.write(into.dtype === "f64" ? Float64Array.from(values) : values, at);
}

/** Fills a tensor of f32, f64 or bf16 from a whole one that is plain or in blocks of GGUF. */
export async function readBlocks(reader: OpenTensors<StoredTensor>, name: string, into: Tensor): Promise<void> {
  if (isStoredAs(reader.tensors.get(name)!.dtype, into.dtype)) return readRaw(reader, { name, at: 0 }, into);
  const step = WINDOW_BYTES / 4;
  for (let at = 0; at < into.size; at += step) {
    storeValues(into, await readElements(reader, name, at, Math.min(step, into.size - at)), at);
  }
}

/** `count` values from element `at` on; both are whole blocks. */
export async function readElements(
  reader: OpenTensors<StoredTensor>,
  name: string,
  at: number,
  count: number,
): Promise<Float32Array> {
  const { dtype } = reader.tensors.get(name)!;
  invariant(isBlockType(dtype), `${name} is plain or in blocks`);
  const bytes = await reader.read(name, ggufBytes(dtype, [at]), ggufBytes(dtype, [count]));
  const decoder = DECODERS[dtype];
  if (decoder !== undefined) return decoder.decode(bytes);
  const out = new Float32Array(count);
  decodeBlocks(dtype, bytes, out);
  return out;
}

async function readFp8(reader: TensorReader, part: StoredPart, into: Tensor): Promise<void> {
  const scales = await readScales(reader, part.name);
  const { columns, rows } = into;
  const step = Math.max(1, Math.floor(WINDOW_BYTES / 4 / columns));
  for (let row = 0; row < rows; row += step) {
    const count = Math.min(step, rows - row) * columns;
    const out = new Float32Array(count);
    decodeFp8Rows(await reader.read(part.name, part.at + row * columns, count), scales, columns, row, out);
    storeValues(into, out, row * columns);
  }
}

/** Of a matrix with a scale for each square block. */
async function readScales(reader: TensorReader, weight: string): Promise<Float32Array> {
  const { shape, file } = reader.tensors.get(weight)!;
  const name = scaleNameOf(weight);
  const found = reader.tensors.get(name);
  const expected = shape.map((n) => Math.ceil(n / FP8_BLOCK));
  if (found === undefined || found.dtype !== "F32" || found.shape.join() !== expected.join()) {
    const got = found === undefined ? "none" : `${found.dtype} [${found.shape.join(", ")}]`;
    const cure = "fp8 weights have one f32 scale for each block of 128 × 128";
    throw new FormatError(file, `must hold ${name} as F32 [${expected.join(", ")}]`, { got, cure });
  }
  return new Float32Array(aligned(await reader.read(name)));
}
