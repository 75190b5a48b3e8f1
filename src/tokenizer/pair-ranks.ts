/** The merges of a vocabulary, looked up by the pair that they merge: open addressing over typed arrays, at most half full. */

/** No rank, no place: a pair that does not merge, the end of a piece. */
export const NONE = -1;

export class PairRanks {
  /**
   * Whether every merge makes a token that only later ones merge further. Then no merge makes a pair of lower rank than its
   * own, as in every vocabulary that was trained.
   */
  readonly isOrdered: boolean;
  /** (left, right, merged) ids by rank. */
  readonly #merges: Uint32Array;
  readonly #left: Int32Array;
  readonly #right: Int32Array;
  readonly #rank: Int32Array;
  readonly #mask: number;

  /** @param merges (left, right, merged) ids in the order of their ranks; the first of equal pairs counts. */
  constructor(merges: Uint32Array) {
    const size = 2 ** Math.ceil(Math.log2(Math.max(2, (merges.length / 3) * 2)));
    this.isOrdered = isOrdered(merges);
    this.#merges = merges;
    this.#mask = size - 1;
    this.#left = new Int32Array(size);
    this.#right = new Int32Array(size);
    this.#rank = new Int32Array(size).fill(NONE);
    for (let rank = 0; rank * 3 < merges.length; rank++) this.#insert(merges[rank * 3]!, merges[rank * 3 + 1]!, rank);
  }

  /** The rank of a pair, `NONE` when it does not merge. */
  get(left: number, right: number): number {
    return this.#rank[this.#slotOf(left, right)]!;
  }

  /** The token that the merge of this rank makes. */
  mergedBy(rank: number): number {
    return this.#merges[rank * 3 + 2]!;
  }

  #insert(left: number, right: number, rank: number): void {
    const at = this.#slotOf(left, right);
    if (this.#rank[at] !== NONE) return;
    this.#left[at] = left;
    this.#right[at] = right;
    this.#rank[at] = rank;
  }

  /** The slot of the pair, or the free one where it belongs. */
  #slotOf(left: number, right: number): number {
    const hash = Math.imul(Math.imul(left, 0x9e3779b1) ^ right, 0x85ebca6b);
    let at = (hash ^ (hash >>> 15)) & this.#mask;
    while (this.#rank[at] !== NONE && (this.#left[at] !== left || this.#right[at] !== right))
      at = (at + 1) & this.#mask;
    return at;
  }
}

function isOrdered(merges: Uint32Array): boolean {
  const made = new Set<number>();
  for (let at = merges.length - 3; at >= 0; at -= 3) {
    // From the last merge on: `made` holds what this one and later ones make.
    made.add(merges[at + 2]!);
    if (made.has(merges[at]!) || made.has(merges[at + 1]!)) return false;
  }
  return true;
}
