/** Ids by falling logit, sorted only as far as they are asked for: the best few of V cost O(V). */

import { invariant } from "../core/errors.ts";

/** A key is an id and, above it, the order of its logit: an exact integer in float64. */
const MOST_IDS = 2 ** 21;
/** Ids that are ranked at first; each further time four times as many. */
const FIRST = 64;

export class Ranking {
  /** The first `#ranked` keys are in their final places. */
  readonly #keys: Float64Array;
  #ranked = 0;

  /** @param logits [V], no NaN. */
  constructor(logits: Float32Array) {
    invariant(logits.length <= MOST_IDS, `at most ${MOST_IDS} ids are ranked, got ${logits.length}`);
    const bits = new Int32Array(logits.buffer, logits.byteOffset, logits.length);
    this.#keys = new Float64Array(logits.length);
    for (let id = 0; id < bits.length; id++) this.#keys[id] = id - orderOf(bits[id]!) * MOST_IDS;
  }

  /** The id of rank i < V: 0 has the largest logit; of equal ones the lower id stands first. */
  at(i: number): number {
    if (i >= this.#ranked) this.#rank(Math.min(Math.max(FIRST, 4 * i), this.#keys.length));
    const key = this.#keys[i]!;
    return key - Math.floor(key / MOST_IDS) * MOST_IDS;
  }

  #rank(count: number): void {
    selectSmallest(this.#keys, this.#ranked, count);
    this.#keys.subarray(this.#ranked, count).sort();
    this.#ranked = count;
  }
}

/** Integers in the order of the floats with these bits; 0 and −0 are equal. */
function orderOf(bits: number): number {
  if (bits >= 0) return bits;
  return bits === -(2 ** 31) ? 0 : bits ^ 0x7fffffff;
}

/** Moves the smallest of the values from `low` on to the places below `count`. Source: Hoare 1961, algorithm 65. */
function selectSmallest(values: Float64Array, low: number, count: number): void {
  let high = values.length - 1;
  while (low < high && count <= high) {
    const pivot = values[(low + high) >> 1]!;
    let [i, j] = [low, high];
    while (i <= j) {
      while (values[i]! < pivot) i++;
      while (values[j]! > pivot) j--;
      if (i > j) break;
      const value = values[i]!;
      values[i++] = values[j]!;
      values[j--] = value;
    }
    if (count <= j) high = j;
    else if (count >= i) low = i;
    else return;
  }
}
