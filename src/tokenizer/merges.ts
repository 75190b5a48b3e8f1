/**
 * Merging the bytes of one piece: the pair of lowest rank first, the leftmost among equals, until no pair merges. The
 * same in Rust: `native/tokenizer/src/merges.rs`.
 */
import { byteIds, type Vocabulary } from "./vocabulary.ts";

/** Pieces up to this many bytes are searched for their lowest rank again after each merge; longer ones are queued. */
const MAX_SEARCHED_BYTES = 64;
const NONE = -1;

export class Merger {
  readonly #byteIds: Uint32Array;
  readonly #merges: Uint32Array;
  readonly #ranks: PairRanks;
  readonly #utf8 = new TextEncoder();
  readonly #ids = new Int32Array(MAX_SEARCHED_BYTES);
  readonly #pairRanks = new Int32Array(MAX_SEARCHED_BYTES);
  readonly #bytes = new Uint8Array(MAX_SEARCHED_BYTES);

  constructor(vocabulary: Vocabulary) {
    this.#byteIds = byteIds(vocabulary);
    this.#merges = vocabulary.merges;
    this.#ranks = new PairRanks(vocabulary.merges);
  }

  /** The ids of `piece`, which must be well-formed. */
  merge(piece: string): readonly number[] {
    const { read, written } = this.#utf8.encodeInto(piece, this.#bytes);
    if (read < piece.length) return this.#mergeByQueue(this.#utf8.encode(piece));
    for (let i = 0; i < written; i++) this.#ids[i] = this.#byteIds[this.#bytes[i]!]!;
    return Array.from(this.#ids.subarray(0, this.#mergeBySearch(written)));
  }

  /** Merges the first `count` of `#ids` in place; how many are left. */
  #mergeBySearch(count: number): number {
    const [ids, ranks] = [this.#ids, this.#pairRanks];
    for (let i = 0; i + 1 < count; i++) ranks[i] = this.#ranks.get(ids[i]!, ids[i + 1]!);
    for (let left = count; left > 1; left--) {
      const at = lowest(ranks, left - 1);
      if (at === NONE) return left;
      ids[at] = this.#merges[ranks[at]! * 3 + 2]!;
      ids.copyWithin(at + 1, at + 2, left);
      ranks.copyWithin(at + 1, at + 2, left - 1);
      if (at > 0) ranks[at - 1] = this.#ranks.get(ids[at - 1]!, ids[at]);
      if (at + 2 < left) ranks[at] = this.#ranks.get(ids[at], ids[at + 1]!);
    }
    return Math.min(count, 1);
  }

  #mergeByQueue(bytes: Uint8Array): number[] {
    const list = new SymbolList(
      this.#ranks,
      this.#merges,
      Int32Array.from(bytes, (byte) => this.#byteIds[byte]!),
    );
    return list.merge();
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

/** The symbols of a long piece as a doubly linked list; an id becomes `NONE` when it has gone into its left neighbour. */
class SymbolList {
  readonly #ranks: PairRanks;
  readonly #merges: Uint32Array;
  readonly #ids: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #queue = new RankQueue();

  constructor(ranks: PairRanks, merges: Uint32Array, ids: Int32Array) {
    this.#ranks = ranks;
    this.#merges = merges;
    this.#ids = ids;
    this.#next = new Int32Array(ids.length);
    this.#previous = new Int32Array(ids.length);
    for (let i = 0; i < ids.length; i++) {
      this.#next[i] = i + 1;
      this.#previous[i] = i - 1;
    }
    this.#next[ids.length - 1] = NONE;
  }

  merge(): number[] {
    for (let i = 0; i < this.#ids.length; i++) this.#enqueue(i);
    for (let lowest = this.#queue.pop(); lowest !== undefined; lowest = this.#queue.pop()) {
      this.#mergeAll(lowest.rank, lowest.places);
    }
    return Array.from(this.#ids.filter((id) => id !== NONE));
  }

  /** Merges the pairs of one rank from the left. A new pair of lower rank goes first: what is left is queued again. */
  #mergeAll(rank: number, places: readonly number[]): void {
    for (let i = 0; i < places.length; i++) {
      if (!this.#mergeAt(rank, places[i]!)) continue;
      return this.#queue.putBack(rank, places.slice(i + 1));
    }
  }

  /** Whether a pair of lower rank has come of it. An entry can be older than its pair: then nothing happens. */
  #mergeAt(rank: number, left: number): boolean {
    if (this.#rankAt(left) !== rank) return false;
    const [next, previous] = [this.#next, this.#previous];
    const right = next[left]!;
    const after = next[right]!;
    this.#ids[left] = this.#merges[rank * 3 + 2]!;
    this.#ids[right] = NONE;
    next[left] = after;
    if (after !== NONE) previous[after] = left;
    const here = this.#enqueue(left);
    const before = previous[left] === NONE ? NONE : this.#enqueue(previous[left]!);
    return (here !== NONE && here < rank) || (before !== NONE && before < rank);
  }

  /** Queues the pair at `left` if it merges; its rank or `NONE`. */
  #enqueue(left: number): number {
    const rank = this.#rankAt(left);
    if (rank !== NONE) this.#queue.push(rank, left);
    return rank;
  }

  #rankAt(left: number): number {
    const id = this.#ids[left]!;
    const next = this.#next[left]!;
    return id === NONE || next === NONE ? NONE : this.#ranks.get(id, this.#ids[next]!);
  }
}

/** Places by rank: a long piece of few different pairs has few ranks, and only those are in a heap. */
class RankQueue {
  readonly #ranks: number[] = [];
  readonly #places = new Map<number, number[]>();
  /** The list that was pushed to last: neighbours often have the same rank. */
  #last: { readonly rank: number; readonly places: number[] } = { rank: NONE, places: [] };

  push(rank: number, place: number): void {
    if (this.#last.rank === rank) return void this.#last.places.push(place);
    const places = this.#places.get(rank);
    if (places === undefined) return this.putBack(rank, [place]);
    places.push(place);
    this.#last = { rank, places };
  }

  putBack(rank: number, places: number[]): void {
    if (places.length === 0) return;
    this.#last = { rank, places };
    this.#places.set(rank, places);
    pushHeap(this.#ranks, rank);
  }

  /** The places of the lowest rank, from the left. */
  pop(): { rank: number; places: readonly number[] } | undefined {
    const rank = popHeap(this.#ranks);
    if (rank === undefined) return undefined;
    const places = this.#places.get(rank)!;
    this.#places.delete(rank);
    if (this.#last.rank === rank) this.#last = { rank: NONE, places: [] };
    return { rank, places: isSorted(places) ? places : Array.from(Int32Array.from(places).toSorted()) };
  }
}

function isSorted(values: readonly number[]): boolean {
  for (let i = 1; i < values.length; i++) if (values[i - 1]! > values[i]!) return false;
  return true;
}

/** A binary heap of numbers, the smallest first. */
function pushHeap(heap: number[], value: number): void {
  let at = heap.length;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (heap[parent]! <= value) break;
    heap[at] = heap[parent]!;
    at = parent;
  }
  heap[at] = value;
}

function popHeap(heap: number[]): number | undefined {
  const top = heap[0];
  const last = heap.pop();
  if (heap.length === 0 || last === undefined) return top;
  let at = 0;
  for (let child = 1; child < heap.length; child = 2 * at + 1) {
    if (child + 1 < heap.length && heap[child + 1]! < heap[child]!) child++;
    if (heap[child]! >= last) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = last;
  return top;
}

/** (left id, right id) to rank: open addressing over typed arrays, at most half full. */
class PairRanks {
  readonly #left: Int32Array;
  readonly #right: Int32Array;
  readonly #rank: Int32Array;
  readonly #mask: number;

  /** The first of equal pairs counts. */
  constructor(merges: Uint32Array) {
    const size = 2 ** Math.ceil(Math.log2(Math.max(2, (merges.length / 3) * 2)));
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
