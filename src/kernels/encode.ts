/** Writes a kernel call down as numbers. See `contract.ts` for the form. */

import { DTYPES, type DType } from "../core/dtype.ts";
import { invariant } from "../core/errors.ts";
import { KERNELS, type KernelName, type KernelNumbers, type KernelOperands, type Operand } from "./contract.ts";

interface Layout {
  readonly op: number;
  readonly operands: readonly string[];
  readonly numbers: readonly string[];
  readonly words: number;
}

/** The order of words of every kernel, made once from the contract. */
export const LAYOUTS: Readonly<Record<KernelName, Layout>> = Object.fromEntries(
  Object.entries(KERNELS).map(([name, spec]) => {
    const operands = Object.keys(spec.operands);
    const numbers = spec.numbers.map((number) => number.replace("?", ""));
    return [name, { op: spec.op, operands, numbers, words: 2 + 3 * operands.length + numbers.length }];
  }),
) as unknown as Record<KernelName, Layout>;

const byOpcode = new Map<number, KernelName>(
  Object.entries(LAYOUTS).map(([name, layout]) => [layout.op, name as KernelName]),
);

/** One call as a run of words. */
export function encodeCall<K extends KernelName>(
  name: K,
  operands: KernelOperands<K>,
  numbers: KernelNumbers<K>,
): Float64Array {
  const layout = LAYOUTS[name];
  const words = new Float64Array(layout.words);
  words[0] = layout.op;
  words[1] = layout.words;
  let at = 2;
  for (const key of layout.operands) {
    const operand = (operands as Record<string, Operand | undefined>)[key];
    if (operand !== undefined) {
      words[at] = operand.handle;
      words[at + 1] = operand.offset;
      words[at + 2] = DTYPES[operand.dtype].id;
    }
    at += 3;
  }
  for (const key of layout.numbers) words[at++] = (numbers as Record<string, number>)[key] ?? 0;
  return words;
}

const dtypeById: readonly DType[] = Object.values(DTYPES)
  .toSorted((a, b) => a.id - b.id)
  .map((info) => info.name);

export interface DecodedCall {
  readonly name: KernelName;
  readonly operands: Readonly<Record<string, Operand | undefined>>;
  readonly numbers: Readonly<Record<string, number>>;
}

/** Reads a list of calls back. @throws InternalError on an unknown opcode or a wrong length. */
export function* decodeCalls(words: Float64Array): Generator<DecodedCall> {
  let start = 0;
  while (start < words.length) {
    const name = byOpcode.get(words[start]!);
    invariant(name !== undefined, `known opcode, got ${words[start]}`);
    const layout = LAYOUTS[name];
    invariant(
      words[start + 1] === layout.words && start + layout.words <= words.length,
      `${name} has ${layout.words} words`,
    );
    let at = start + 2;
    const operands: Record<string, Operand | undefined> = {};
    for (const key of layout.operands) {
      const handle = words[at]!;
      if (handle !== 0) operands[key] = { handle, offset: words[at + 1]!, dtype: dtypeById[words[at + 2]!]! };
      at += 3;
    }
    const numbers: Record<string, number> = {};
    for (const key of layout.numbers) numbers[key] = words[at++]!;
    yield { name, operands, numbers };
    start += layout.words;
  }
}
