/** Places by rank: a long piece of few different pairs has few ranks, and only those are in a heap. */
import { NONE } from "./pair-ranks.ts";

export class RankQueue {
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
