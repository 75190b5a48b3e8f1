/**
 * The symbols of a long piece in a row, merged in sweeps. Where the pair of lowest rank is frequent, as in a run of one
 * letter, one sweep merges it everywhere and closes the gaps: memory is only walked from the left, and the time is that of a
 * few sweeps. The same in Rust: `native/tokenizer/src/row.rs`.
 */
import { NONE, type PairRanks } from "./pair-ranks.ts";

/** The lowest rank must be that of one pair in this many: what all sweeps read is then bounded by the length of the piece. */
const MAX_PAIRS_PER_PLACE = 8;

export class SymbolRow {
  readonly #table: PairRanks;
  readonly #ids: Int32Array;
  /** The rank of each symbol with the next one. */
  readonly #ranks: Int32Array;
  #count: number;

  /** `bytes` must not be empty. */
  constructor(table: PairRanks, bytes: Uint8Array, byteIds: Uint32Array) {
    this.#table = table;
    this.#count = bytes.length;
    this.#ids = new Int32Array(bytes.length);
    this.#ranks = new Int32Array(bytes.length);
    for (let i = 0; i < bytes.length; i++) this.#ids[i] = byteIds[bytes[i]!]!;
    this.#rankAll();
  }

  get ids(): Int32Array {
    return this.#ids.subarray(0, this.#count);
  }

  /** The rank of each symbol with the next one, `NONE` where they do not merge and at the end. */
  get ranks(): Int32Array {
    return this.#ranks.subarray(0, this.#count);
  }

  /** Merges while the lowest rank is frequent; false when pairs that merge are left. Needs merges that are ordered. */
  sweep(): boolean {
    for (;;) {
      const { rank, places } = this.#lowest();
      if (rank === NONE) return true;
      if (places * MAX_PAIRS_PER_PLACE < this.#count) return false;
      this.#mergeAll(rank);
    }
  }

  #rankAll(): void {
    const [ids, ranks, end] = [this.#ids, this.#ranks, this.#count - 1];
    let [left, right, rank] = [NONE, NONE, NONE];
    for (let i = 0; i < end; i++) {
      // In a run all pairs are the same.
      if (ids[i] !== left || ids[i + 1] !== right) {
        [left, right] = [ids[i]!, ids[i + 1]!];
        rank = this.#table.get(left, right);
      }
      ranks[i] = rank;
    }
    ranks[end] = NONE;
  }

  #lowest(): { readonly rank: number; readonly places: number } {
    let rank = NONE;
    let places = 0;
    for (let i = 0; i < this.#count; i++) {
      const found = this.#ranks[i]!;
      if (found === rank) places++;
      else if (found !== NONE && (rank === NONE || found < rank)) [rank, places] = [found, 1];
    }
    return { rank, places };
  }

  /** Merges the pairs of one rank from the left. What is written never stands to the right of what is read. */
  #mergeAll(rank: number): void {
    const [ids, ranks, count] = [this.#ids, this.#ranks, this.#count];
    const merged = this.#table.mergedBy(rank);
    const rankOfTwo = this.#table.get(merged, merged);
    let wasMerged = false;
    let out = 0;
    for (let at = 0; at < count; out++) {
      const isMerged = ranks[at] === rank;
      ids[out] = isMerged ? merged : ids[at]!;
      ranks[out] = ranks[at]!;
      if (wasMerged && isMerged) ranks[out - 1] = rankOfTwo;
      else if (out > 0 && (wasMerged || isMerged)) ranks[out - 1] = this.#table.get(ids[out - 1]!, ids[out]!);
      at += isMerged ? 2 : 1;
      wasMerged = isMerged;
    }
    if (wasMerged) ranks[out - 1] = NONE;
    this.#count = out;
  }
}
