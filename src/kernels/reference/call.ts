/** A kernel call as the reference sees it: operands as typed arrays, numbers checked. */

import { bytesOf, DTYPES, fromBf16Bits, toBf16Bits, type DType } from "../../core/dtype.ts";
import { InternalError, invariant } from "../../core/errors.ts";
import {
  KERNELS,
  type Handle,
  type KernelName,
  type KernelNumbers,
  type KernelOperands,
  type Operand,
} from "../contract.ts";
import type { DecodedCall } from "../encode.ts";
import { readStored, scalesUpTo, type Floats, type Scale } from "./stored.ts";

type OperandName<K extends KernelName> = keyof KernelOperands<K> & string;
type NumberName<K extends KernelName> = keyof KernelNumbers<K> & string;

/** Bytes that a call has taken so far. */
interface Claim {
  readonly name: string;
  readonly handle: Handle;
  readonly start: number;
  readonly end: number;
  readonly isWritten: boolean;
}

/** A stored matrix of a call: the elements that the kernel reads, from the first to the last. */
export interface WeightShape {
  readonly length: number;
  /** Elements from row to row, and those of a row that are read. */
  readonly width: number;
  readonly columns: number;
}

/** Reads elements of a stored matrix, counted from its first. */
export type Weights = (from: number, length: number) => Floats;

/** The written operands that may be bf16; every read one may. */
const BF16_OUTPUTS: ReadonlySet<string> = new Set(["copy2d.y", "adamwInto.copy"]);

export class Call<K extends KernelName> {
  readonly #call: DecodedCall;
  readonly #bufferOf: (handle: Handle) => ArrayBuffer;
  readonly #claims: Claim[] = [];
  readonly #toEncode: { floats: Floats; bits: Uint16Array }[] = [];

  constructor(call: DecodedCall, bufferOf: (handle: Handle) => ArrayBuffer) {
    this.#call = call;
    this.#bufferOf = bufferOf;
  }

  number(name: NumberName<K>): number {
    return this.#call.numbers[name]!;
  }

  /** A number that counts something: an integer ≥ 0. */
  count(name: NumberName<K>): number {
    const value = this.number(name);
    invariant(Number.isSafeInteger(value) && value >= 0, `${this.#place(name)} is an integer ≥ 0, got ${value}`);
    return value;
  }

  flag(name: NumberName<K>): boolean {
    return this.number(name) !== 0;
  }

  has(name: OperandName<K>): boolean {
    return this.#call.operands[name] !== undefined;
  }

  /**
   * The `length` elements of a floating-point operand. A bf16 operand comes as a float32 copy, which `finish` rounds
   * back when the kernel writes it.
   */
  floats(name: OperandName<K>, length: number): Floats {
    const floats = this.optionalFloats(name, length);
    invariant(floats !== undefined, `${this.#place(name)} is given`);
    return floats;
  }

  optionalFloats(name: OperandName<K>, length: number): Floats | undefined {
    const operand = this.#call.operands[name];
    return operand === undefined ? undefined : this.#floats(name, length, operand);
  }

  #floats(name: string, length: number, operand: Operand): Floats {
    const [buffer, start] = this.#range(name, length, operand);
    if (operand.dtype === "f32") return new Float32Array(buffer, start, length);
    if (operand.dtype === "f64") return new Float64Array(buffer, start, length);
    if (operand.dtype === "bf16") return this.#decodeBf16(name, new Uint16Array(buffer, start, length));
    throw new InternalError(`${this.#place(name)} holds f32, f64 or bf16, got ${operand.dtype}`);
  }

  dtype(name: OperandName<K>): DType {
    return this.#required(name).dtype;
  }

  /** A matrix of any stored type, with its scales when `scale` names an operand that is given. */
  weights(name: OperandName<K>, scale: OperandName<K>, shape: WeightShape): Weights {
    return this.#weights(this.#required(name), this.#call.operands[scale], { ...shape, name, scale });
  }

  /** For each of `count` matrices whose handles the operand holds, what reads it. */
  listedWeights(
    name: OperandName<K>,
    scale: OperandName<K>,
    count: number,
    shape: WeightShape,
  ): (i: number) => Weights {
    const matrices = this.#handles(name, count);
    const scales = this.has(scale) ? this.#handles(scale, count) : undefined;
    const listed = (key: string, handle: Handle): Operand => ({ ...this.#required(key), handle, offset: 0 });
    return (i) => {
      const matrix = listed(name, matrices[i]!);
      const itsScale = scales === undefined ? undefined : listed(scale, scales[i]!);
      return this.#weights(matrix, itsScale, { ...shape, name, scale });
    };
  }

  #weights(
    operand: Operand,
    scaleOperand: Operand | undefined,
    { name, scale: scaleName, length, width, columns }: WeightShape & { readonly name: string; readonly scale: string },
  ): Weights {
    const { dtype, offset } = operand;
    const [buffer] = this.#range(name, length, operand);
    const { blockElements } = DTYPES[dtype];
    invariant(offset % blockElements === 0, `${this.#place(name)} starts with a block of ${dtype}, got ${offset}`);
    const rows = length <= columns || width % blockElements === 0;
    invariant(rows, `${this.#place(name)} has rows of whole blocks of ${dtype}, got ${width} elements`);
    let scale: Scale | undefined;
    if (scaleOperand !== undefined && length > 0) {
      const block = { rows: this.#scaleSide("scaleRows"), columns: this.#scaleSide("scaleCols"), width };
      const inRow = width > 0 && (offset % width) + columns <= width;
      invariant(inRow, `${this.#place(name)} has rows within those of the scaled matrix (${width}), got ${columns}`);
      const values = this.#floats(scaleName, scalesUpTo(offset + length - 1, block), scaleOperand);
      scale = { ...block, values };
    }
    return (from, count) => readStored({ dtype, buffer, offset, scale }, from, count);
  }

  #scaleSide(name: "scaleRows" | "scaleCols"): number {
    const side = this.#call.numbers[name]!;
    invariant(Number.isSafeInteger(side) && side > 0, `${this.#place(name)} is an integer above 0, got ${side}`);
    return side;
  }

  #handles(name: OperandName<K>, count: number): Float64Array {
    const operand: Operand = { ...this.#required(name), dtype: "f64" };
    const [buffer, start] = this.#range(name, count, operand);
    return new Float64Array(buffer, start, count);
  }

  #required(name: string): Operand {
    const operand = this.#call.operands[name];
    invariant(operand !== undefined, `${this.#place(name)} is given`);
    return operand;
  }

  ints(name: OperandName<K>, length: number): Int32Array {
    const ints = this.optionalInts(name, length);
    invariant(ints !== undefined, `${this.#place(name)} is given`);
    return ints;
  }

  optionalInts(name: OperandName<K>, length: number): Int32Array | undefined {
    const operand = this.#call.operands[name];
    if (operand === undefined) return undefined;
    invariant(operand.dtype === "i32", `${this.#place(name)} holds indices (i32), got ${operand.dtype}`);
    return new Int32Array(...this.#range(name, length), length);
  }

  /** An operand of row numbers, each in [0, limit). */
  indices(name: OperandName<K>, length: number, limit: number): Int32Array {
    const indices = this.optionalIndices(name, length, limit);
    invariant(indices !== undefined, `${this.#place(name)} is given`);
    return indices;
  }

  optionalIndices(name: OperandName<K>, length: number, limit: number): Int32Array | undefined {
    const indices = this.optionalInts(name, length);
    for (const index of indices ?? []) {
      invariant(index >= 0 && index < limit, `${this.#place(name)} lies in [0, ${limit}), got ${index}`);
    }
    return indices;
  }

  /** An operand of `count` + 1 row starts that never fall and end at most at `rows`. */
  starts(name: OperandName<K>, count: number, rows: number): Int32Array {
    const starts = this.ints(name, count + 1);
    for (let i = 0; i <= count; i++) {
      const inOrder = starts[i]! >= (i === 0 ? 0 : starts[i - 1]!) && starts[i]! <= rows;
      invariant(inOrder, `${this.#place(name)} rises from 0 to at most ${rows}, got ${starts[i]}`);
    }
    return starts;
  }

  /** Rounds what was written to bf16 operands. */
  finish(): void {
    for (const { floats, bits } of this.#toEncode) {
      for (let i = 0; i < bits.length; i++) bits[i] = toBf16Bits(floats[i]!);
    }
  }

  #decodeBf16(name: string, bits: Uint16Array): Float32Array {
    const floats = new Float32Array(bits.length);
    for (let i = 0; i < bits.length; i++) floats[i] = fromBf16Bits(bits[i]!);
    if (this.#isWritten(name)) {
      invariant(
        BF16_OUTPUTS.has(`${this.#call.name}.${name}`),
        `${this.#place(name)} is written in f32 or f64, got bf16`,
      );
      this.#toEncode.push({ floats, bits });
    }
    return floats;
  }

  #range(name: string, length: number, operand = this.#required(name)): [buffer: ArrayBuffer, start: number] {
    const { handle, offset, dtype } = operand;
    invariant(dtype !== undefined, `${this.#place(name)} has a known dtype`);
    const buffer = this.#bufferOf(handle);
    const end = bytesOf(dtype, offset + length);
    invariant(
      Number.isSafeInteger(offset) && offset >= 0 && end <= buffer.byteLength,
      `${this.#place(name)} lies in its buffer of ${buffer.byteLength} bytes, got elements ${offset} to ${offset + length}`,
    );
    const start = bytesOf(dtype, offset);
    this.#claim({ name, handle, start, end, isWritten: this.#isWritten(name) });
    return [buffer, start];
  }

  /** What a kernel writes overlaps nothing else of the call, as threads could not agree on an order. */
  #claim(claim: Claim): void {
    if (claim.start === claim.end) return;
    const met = this.#claims.find(
      (other) => other.handle === claim.handle && claim.start < other.end && other.start < claim.end,
    );
    const allowed = met === undefined || !(met.isWritten || claim.isWritten) || this.#mayOverlap(met, claim);
    invariant(allowed, `${this.#place(claim.name)} does not overlap ${met?.name}`);
    this.#claims.push(claim);
  }

  /** Gradients of attention are columns of shared rows; the gradient of the loss may replace the logits. */
  #mayOverlap(a: Claim, b: Claim): boolean {
    if (this.#call.name === "attentionBackward") return a.isWritten && b.isWritten;
    return this.#call.name === "softmaxCrossEntropy" && a.name === "logits" && a.start === b.start && a.end === b.end;
  }

  #isWritten(name: string): boolean {
    return !(KERNELS[this.#call.name].operands as Record<string, string>)[name]!.startsWith("in");
  }

  #place(name: string): string {
    return `${this.#call.name}.${name}`;
  }
}

/** Elements from the first to the last value of `rows` rows of `cols`, `stride` apart. */
export function spanOf(rows: number, cols: number, stride: number): number {
  return rows === 0 ? 0 : (rows - 1) * stride + cols;
}

export function roundToBf16(value: number): number {
  return fromBf16Bits(toBf16Bits(value));
}
