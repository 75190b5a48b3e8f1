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
    return new SymbolList(this.#ranks, this.#merges, bytes, this.#byteIds).merge();
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
  readonly #ranks: PairRanks;
  readonly #merges: Uint32Array;
  readonly #fields: Int32Array;
  readonly #queue = new RankQueue();

  /** `bytes` must not be empty. */
  constructor(ranks: PairRanks, merges: Uint32Array, bytes: Uint8Array, byteIds: Uint32Array) {
    this.#ranks = ranks;
    this.#merges = merges;
    this.#fields = new Int32Array(bytes.length * FIELDS);
    for (let i = 0, at = 0; i < bytes.length; i++, at += FIELDS) {
      this.#fields[at + ID] = byteIds[bytes[i]!]!;
      this.#fields[at + NEXT] = at + FIELDS;
      this.#fields[at + PREVIOUS] = i === 0 ? NONE : at - FIELDS;
    }
    this.#fields[(bytes.length - 1) * FIELDS + NEXT] = NONE;
  }

  merge(): number[] {
    const fields = this.#fields;
    for (let at = 0; at < fields.length; at += FIELDS) this.#enqueue(at);
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
    fields[left + ID] = this.#merges[rank * 3 + 2]!;
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
    return id === NONE || next === NONE ? NONE : this.#ranks.get(id, this.#fields[next + ID]!);
  }
}

/** Places by rank: a long piece of few different pairs has few ranks, and only those are in a heap. */
class RankQueue {
  readonly #ranks: number[] = [];
  readonly #lists = new Map<number, PlaceList>();
  readonly #spare: PlaceList[] = [];
  /** What was pushed to last: neighbours often have the same rank. */
  #last: { readonly rank: number; readonly list: PlaceList } | undefined;

  push(rank: number, place: number): void {
    if (this.#last?.rank !== rank) this.#last = { rank, list: this.#lists.get(rank) ?? this.#open(rank) };
    this.#last.list.push(place);
  }

  /** The places of the lowest rank. */
  pop(): { readonly rank: number; readonly list: PlaceList } | undefined {
    const rank = popHeap(this.#ranks);
    if (rank === undefined) return undefined;
    const list = this.#lists.get(rank)!;
    this.#lists.delete(rank);
    if (this.#last?.rank === rank) this.#last = undefined;
    return { rank, list };
  }

  /** Takes back a list that is no longer needed. */
  recycle(list: PlaceList): void {
    list.clear();
    this.#spare.push(list);
  }

  #open(rank: number): PlaceList {
    const list = this.#spare.pop() ?? new PlaceList();
    this.#lists.set(rank, list);
    pushHeap(this.#ranks, rank);
    return list;
  }
}

/** Places in a buffer that grows. */
class PlaceList {
  #places = new Int32Array(16);
  #count = 0;
  #isSorted = true;

  push(place: number): void {
    const last = this.#count === 0 ? NONE : this.#places[this.#count - 1]!;
    if (last === place) return;
    if (last > place) this.#isSorted = false;
    if (this.#count === this.#places.length) {
      const grown = new Int32Array(2 * this.#count);
      grown.set(this.#places);
      this.#places = grown;
    }
    this.#places[this.#count++] = place;
  }

  /** The places from the left: a view, good until the list is cleared. */
  sorted(): Int32Array {
    const places = this.#places.subarray(0, this.#count);
    return this.#isSorted ? places : places.toSorted();
  }

  clear(): void {
    this.#count = 0;
    this.#isSorted = true;
  }
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
