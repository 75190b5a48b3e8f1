/** Stored elements as f32 and back, a slab at a time: plain types in tight loops, blocks by their codec. */

import { invariant, UnsupportedError } from "../core/errors.ts";
import { e4m3Table, f16Table, fromE8m0Bits, toF16Bits } from "../core/float-formats.ts";
import { BLOCK_TYPES, decodeBlocks, encodeBlocks, isBlockType, type WritableBlockType } from "../core/index.ts";

/** Types that are written: those of blocks, and integers for tables. */
export type OutputType = WritableBlockType | "I32" | "I64";

const READABLE: readonly string[] = [...BLOCK_TYPES, "F8_E4M3", "F8_E8M0", "I32", "I64"];

/** @throws UnsupportedError for a type that holds no weights. */
export function checkReadable(place: string, dtype: string): void {
  if (READABLE.includes(dtype)) return;
  throw new UnsupportedError(place, "must be of a type that can be read", dtype, READABLE);
}

/**
 * @param dtype - one that `checkReadable` has passed.
 * @param count - values in `bytes`.
 */
export function decodeElements(dtype: string, bytes: Uint8Array, count: number): Float32Array {
  const { buffer, byteOffset } = bytes.byteOffset % 8 === 0 ? bytes : bytes.slice();
  switch (dtype) {
    case "F32":
      return new Float32Array(buffer, byteOffset, count);
    case "BF16":
      return widen(new Uint16Array(buffer, byteOffset, count));
    case "F16":
      return look(f16Table(), new Uint16Array(buffer, byteOffset, count));
    case "F8_E4M3":
      return look(e4m3Table(), bytes);
    case "F8_E8M0":
      return Float32Array.from(bytes, fromE8m0Bits);
    case "I32":
      return Float32Array.from(new Int32Array(buffer, byteOffset, count));
    case "I64":
      return Float32Array.from(new BigInt64Array(buffer, byteOffset, count), Number);
    default:
      break;
  }
  invariant(isBlockType(dtype), `${dtype} can be read`);
  const out = new Float32Array(count);
  decodeBlocks(dtype, bytes, out);
  return out;
}

function widen(halves: Uint16Array): Float32Array {
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16;
  return new Float32Array(bits.buffer);
}

function look(table: Float32Array, codes: Uint8Array | Uint16Array): Float32Array {
  const out = new Float32Array(codes.length);
  for (let i = 0; i < codes.length; i++) out[i] = table[codes[i]!]!;
  return out;
}

/** Types without blocks; the values are finite. */
const PLAIN: Partial<Record<OutputType, (values: Float32Array) => Uint8Array>> = {
  F32: viewBytes,
  BF16: (values) => viewBytes(narrow(values)),
  F16: (values) => viewBytes(halve(values)),
  I32: (values) => viewBytes(Int32Array.from(values)),
  I64: (values) => viewBytes(BigInt64Array.from(values, BigInt)),
};

/** Values rounded to nearest, ties to even; they are finite and whole blocks. */
export function encodeElements(dtype: OutputType, values: Float32Array): Uint8Array {
  return PLAIN[dtype]?.(values) ?? encodeBlocks(dtype as WritableBlockType, values);
}

function narrow(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) out[i] = (bits[i]! + 0x7fff + ((bits[i]! >>> 16) & 1)) >>> 16;
  return out;
}

/** From here on an f16 is normal, and rounding its bits is rounding its value. */
const MIN_NORMAL_F16 = 0x38800000;
/** The difference of the exponents' biases, where f16 has its exponent. */
const REBIAS = (127 - 15) << 10;

/** The values are at most 65504. */
function halve(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const size = bits[i]! & 0x7fffffff;
    const sign = (bits[i]! >>> 16) & 0x8000;
    out[i] =
      size < MIN_NORMAL_F16 ? toF16Bits(values[i]!) : sign | (((size + 0xfff + ((size >>> 13) & 1)) >>> 13) - REBIAS);
  }
  return out;
}

/** The bytes of an array, without a copy. */
export function viewBytes({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}
