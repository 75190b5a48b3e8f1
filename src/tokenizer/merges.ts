/**
 * Merging the bytes of one piece: the pair of lowest rank first, the leftmost among equals, until no pair merges. The
 * same in Rust: `native/tokenizer/src/merges.rs`.
 */
import { NONE, PairRanks } from "./pair-ranks.ts";
import { RankQueue } from "./rank-queue.ts";
import { SymbolRow } from "./symbol-row.ts";
import { byteIds, type Vocabulary } from "./vocabulary.ts";

/** Pieces up to this many bytes are searched for their lowest rank again after each merge; longer ones are swept and queued. */
const MAX_SEARCHED_BYTES = 64;

export class Merger {
  readonly #byteIds: Uint32Array;
  readonly #table: PairRanks;
  readonly #utf8 = new TextEncoder();
  readonly #ids = new Int32Array(MAX_SEARCHED_BYTES);
  readonly #ranks = new Int32Array(MAX_SEARCHED_BYTES);
  readonly #bytes = new Uint8Array(MAX_SEARCHED_BYTES);

  constructor(vocabulary: Vocabulary) {
    this.#byteIds = byteIds(vocabulary);
    this.#table = new PairRanks(vocabulary.merges);
  }

  /** The ids of `piece`, which must be well-formed. */
  merge(piece: string): ArrayLike<number> {
    const { read, written } = this.#utf8.encodeInto(piece, this.#bytes);
    if (read < piece.length) return this.#mergeLong(this.#utf8.encode(piece));
    for (let i = 0; i < written; i++) this.#ids[i] = this.#byteIds[this.#bytes[i]!]!;
    return Array.from(this.#ids.subarray(0, this.#mergeBySearch(written)));
  }

  /** Merges the first `count` of `#ids` in place; how many are left. */
  #mergeBySearch(count: number): number {
    const [ids, ranks, table] = [this.#ids, this.#ranks, this.#table];
    for (let i = 0; i + 1 < count; i++) ranks[i] = table.get(ids[i]!, ids[i + 1]!);
    for (let left = count; left > 1; left--) {
      const at = lowest(ranks, left - 1);
      if (at === NONE) return left;
      ids[at] = table.mergedBy(ranks[at]!);
      ids.copyWithin(at + 1, at + 2, left);
      ranks.copyWithin(at + 1, at + 2, left - 1);
      if (at > 0) ranks[at - 1] = table.get(ids[at - 1]!, ids[at]);
      if (at + 2 < left) ranks[at] = table.get(ids[at], ids[at + 1]!);
    }
    return Math.min(count, 1);
  }

  #mergeLong(bytes: Uint8Array): ArrayLike<number> {
    const row = new SymbolRow(this.#table, bytes, this.#byteIds);
    if (this.#table.isOrdered && row.sweep()) return row.ids;
    return new SymbolList(this.#table, row).merge();
  }
}

/** The place of the lowest rank, the leftmost among equals; `NONE` when no pair merges. */
function lowest(ranks: Int32Array, count: number): number {
  let at = NONE;
  let best = 0;
  for (let i = 0; i < count; i++) {
    const rank = ranks[i]!;
    if (rank !== NONE && (at === NONE || rank < best)) [at, best] = [i, rank];
  }
  return at;
}

/** What the list holds of a symbol: the id, which becomes `NONE` when it has gone into its left neighbour, and the links. */
const [ID, NEXT, PREVIOUS, FIELDS] = [0, 1, 2, 3];

/** The symbols of a long piece as a doubly linked list. The fields of a symbol stand together: memory decides its speed. */
class SymbolList {
  readonly #table: PairRanks;
  readonly #fields: Int32Array;
  readonly #queue = new RankQueue();

  constructor(table: PairRanks, { ids, ranks }: SymbolRow) {
    this.#table = table;
    this.#fields = new Int32Array(ids.length * FIELDS);
    for (let i = 0, at = 0; i < ids.length; i++, at += FIELDS) {
      this.#fields[at + ID] = ids[i]!;
      this.#fields[at + NEXT] = at + FIELDS;
      this.#fields[at + PREVIOUS] = i === 0 ? NONE : at - FIELDS;
      if (ranks[i] !== NONE) this.#queue.push(ranks[i]!, at);
    }
    this.#fields[(ids.length - 1) * FIELDS + NEXT] = NONE;
  }

  merge(): number[] {
    const fields = this.#fields;
    for (let lowest = this.#queue.pop(); lowest !== undefined; lowest = this.#queue.pop()) {
      this.#mergeAll(lowest.rank, lowest.list.sorted());
      this.#queue.recycle(lowest.list);
    }
    const ids: number[] = [];
    for (let at = 0; at !== NONE; at = fields[at + NEXT]!) ids.push(fields[at + ID]!);
    return ids;
  }

  /** Merges the pairs of one rank from the left. A new pair of lower rank goes first: what is left is queued again. */
  #mergeAll(rank: number, places: Int32Array): void {
    for (let i = 0; i < places.length; i++) {
      if (!this.#mergeAt(rank, places[i]!)) continue;
      for (let rest = i + 1; rest < places.length; rest++) this.#queue.push(rank, places[rest]!);
      return;
    }
  }

  /** Whether a pair of lower rank has come of it. An entry can be older than its pair: then nothing happens. */
  #mergeAt(rank: number, left: number): boolean {
    if (this.#rankAt(left) !== rank) return false;
    const fields = this.#fields;
    const right = fields[left + NEXT]!;
    const after = fields[right + NEXT]!;
    fields[left + ID] = this.#table.mergedBy(rank);
    fields[right + ID] = NONE;
    fields[left + NEXT] = after;
    if (after !== NONE) fields[after + PREVIOUS] = left;
    // From the left, so that the places of a rank are in order.
    const previous = fields[left + PREVIOUS]!;
    const before = previous === NONE ? NONE : this.#enqueue(previous);
    const here = this.#enqueue(left);
    return (here !== NONE && here < rank) || (before !== NONE && before < rank);
  }

  /** Queues the pair at `left` if it merges; its rank or `NONE`. */
  #enqueue(left: number): number {
    const rank = this.#rankAt(left);
    if (rank !== NONE) this.#queue.push(rank, left);
    return rank;
  }

  #rankAt(left: number): number {
    const id = this.#fields[left + ID]!;
    const next = this.#fields[left + NEXT]!;
    return id === NONE || next === NONE ? NONE : this.#table.get(id, this.#fields[next + ID]!);
  }
}
