/** Compares the tensors that a checkpoint holds with those that its model must have, by names and shapes. */

import type { StoredTensor } from "../formats/index.ts";
import { isSameShape } from "./tensor-groups.ts";

export interface ExpectedTensor {
  readonly name: string;
  readonly shape: readonly number[];
}

export interface ShapeMismatch {
  readonly name: string;
  readonly expected: readonly number[];
  readonly got: readonly number[];
}

export interface TensorCheck {
  /** Names that the model must have and the checkpoint lacks. */
  readonly missing: readonly string[];
  /** Names that no part of the model has. */
  readonly unexpected: readonly string[];
  readonly mismatched: readonly ShapeMismatch[];
  /** Whether the tensors are those of the released checkpoint in their types. */
  readonly isReleased: boolean;
}

/**
 * @param expected - makes the list anew each time: it is long, and is kept only where something is wrong.
 * @param isOptional - whether a tensor may be absent, or there beside those of the model.
 */
export function checkTensors(
  expected: () => Iterable<ExpectedTensor>,
  stored: ReadonlyMap<string, StoredTensor>,
  isOptional: (name: string) => boolean,
): TensorCheck {
  const missing: string[] = [];
  const mismatched: ShapeMismatch[] = [];
  let found = 0;
  for (const { name, shape } of expected()) {
    const got = stored.get(name)?.shape;
    if (got === undefined) {
      if (!isOptional(name)) missing.push(name);
    } else {
      found++;
      if (!isSameShape(shape, got)) mismatched.push({ name, expected: shape, got });
    }
  }
  const unexpected = found === stored.size ? [] : namesBeside(expected(), stored).filter((name) => !isOptional(name));
  return { missing, unexpected, mismatched, isReleased: false };
}

function namesBeside(expected: Iterable<ExpectedTensor>, stored: ReadonlyMap<string, StoredTensor>): string[] {
  const beside = new Set(stored.keys());
  for (const { name } of expected) beside.delete(name);
  return [...beside];
}
