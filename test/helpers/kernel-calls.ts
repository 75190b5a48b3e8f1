/** Runs one kernel on plain arrays, with guard bytes around every operand. */

import { bytesOf, DTYPES, fromBf16Bits, toBf16Bits, type DType, type Rng } from "../../src/core/index.ts";
import {
  encodeCall,
  type Backend,
  type Handle,
  type KernelName,
  type KernelNumbers,
  type KernelOperands,
  type Operand,
} from "../../src/kernels/index.ts";

export interface Field {
  readonly dtype: DType;
  /** Numbers; of types that only weights have, the bytes as they are stored. */
  readonly values: ArrayLike<number>;
  /** Elements of the buffer in front of the operand, where three blocks will not do. */
  readonly front?: number;
  /** The operand holds the handles of these in place of values. */
  readonly list?: readonly Field[];
}

export type Fields<K extends KernelName> = {
  readonly [O in keyof KernelOperands<K>]: Field | Extract<KernelOperands<K>[O], undefined>;
};

export const f32 = (values: ArrayLike<number>): Field => ({ dtype: "f32", values });
export const f64 = (values: ArrayLike<number>): Field => ({ dtype: "f64", values });
export const bf16 = (values: ArrayLike<number>): Field => ({ dtype: "bf16", values });
export const i32 = (values: ArrayLike<number>): Field => ({ dtype: "i32", values });

/** Bytes of a stored type. */
export const stored = (dtype: DType, bytes: Uint8Array, front?: number): Field =>
  front === undefined ? { dtype, values: bytes } : { dtype, values: bytes, front };

/** An operand that starts at element `at` of another one. */
export interface Alias {
  readonly of: string;
  readonly at: number;
}

/** An operand to be written, full of NaN (or −1) beforehand. */
export const blank = (dtype: DType, length: number): Field => ({
  dtype,
  values: new Float64Array(length).fill(dtype === "i32" ? -1 : NaN),
});

/** Uniform numbers in [−scale, scale). */
export const uniform = (rng: Rng, length: number, scale = 1): Float64Array =>
  Float64Array.from({ length }, () => (2 * rng.uniform() - 1) * scale);

function toBytes({ dtype, values }: Field): Uint8Array {
  if (dtype === "f32") return new Uint8Array(new Float32Array(values).buffer);
  if (dtype === "f64") return new Uint8Array(new Float64Array(values).buffer);
  if (dtype === "i32") return new Uint8Array(new Int32Array(values).buffer);
  if (dtype === "bf16") return new Uint8Array(new Uint16Array(Array.from(values, toBf16Bits)).buffer);
  return Uint8Array.from(values);
}

function fromBytes(dtype: DType, bytes: Uint8Array): Float64Array {
  const buffer = bytes.slice().buffer;
  if (dtype === "f32") return new Float64Array(new Float32Array(buffer));
  if (dtype === "f64") return new Float64Array(buffer);
  if (dtype === "i32") return new Float64Array(new Int32Array(buffer));
  if (dtype === "bf16") return new Float64Array(new Uint16Array(buffer)).map(fromBf16Bits);
  return Float64Array.from(bytes);
}

const GUARD = 0xa5;
/** Blocks in front of an operand: odd, so that no operand but the first is aligned by luck. */
const FRONT = 3;
const BACK_BYTES = 64;

function frontOf({ dtype, front }: Field): number {
  return front ?? FRONT * DTYPES[dtype].blockElements;
}

/** A buffer that holds the operand between guards, and its bytes. */
function place(backend: Backend, field: Field): { handle: Handle; length: number } {
  const bytes = toBytes(field);
  const front = bytesOf(field.dtype, frontOf(field));
  const whole = new Uint8Array(front + bytes.length + BACK_BYTES).fill(GUARD);
  whole.set(bytes, front);
  const handle = backend.alloc(whole.length);
  backend.write(handle, 0, whole);
  return { handle, length: whole.length };
}

/**
 * Runs a kernel and returns every operand as it is afterwards. `alias` names operands that lie in the memory of another
 * one; their result is the rest of that memory.
 * @throws Error when the kernel wrote outside an operand.
 */
export function runKernel<K extends KernelName>(
  backend: Backend,
  name: K,
  fields: Fields<K>,
  numbers: KernelNumbers<K>,
  alias: Readonly<Record<string, Alias>> = {},
): Record<keyof KernelOperands<K>, Float64Array> {
  const given = Object.entries(fields as Record<string, Field | undefined>).filter(
    (entry): entry is [string, Field] => entry[1] !== undefined,
  );
  const operands: Record<string, Operand> = {};
  const listed: Handle[] = [];
  const owned: [string, Field, number][] = [];
  for (const [key, field] of given) {
    if (alias[key] !== undefined) continue;
    const handles = field.list?.map((matrix) => place(backend, { front: 0, ...matrix }).handle) ?? [];
    listed.push(...handles);
    const one = field.list === undefined ? field : f64(handles);
    const { handle, length } = place(backend, one);
    operands[key] = { handle, offset: frontOf(one), dtype: field.dtype };
    owned.push([key, one, length]);
  }
  for (const [key, { of, at }] of Object.entries(alias)) {
    operands[key] = { ...operands[of]!, offset: FRONT + at };
  }
  try {
    backend.run(encodeCall(name, operands as unknown as KernelOperands<K>, numbers));
    const results: Record<string, Float64Array> = {};
    for (const [key, field, length] of owned) {
      const whole = backend.readSync(operands[key]!.handle, 0, length);
      const front = bytesOf(field.dtype, frontOf(field));
      const guards = [...whole.subarray(0, front), ...whole.subarray(length - BACK_BYTES)];
      if (guards.some((byte) => byte !== GUARD)) throw new Error(`${name} wrote outside ${key}`);
      // Handles are not the same on every backend.
      const isList = (fields as Record<string, Field | undefined>)[key]!.list !== undefined;
      results[key] = fromBytes(field.dtype, isList ? new Uint8Array() : whole.subarray(front, length - BACK_BYTES));
    }
    for (const [key, { of, at }] of Object.entries(alias)) results[key] = results[of]!.subarray(at);
    return results as Record<keyof KernelOperands<K>, Float64Array>;
  } finally {
    for (const handle of listed) backend.free(handle);
    for (const [key] of owned) backend.free(operands[key]!.handle);
  }
}
