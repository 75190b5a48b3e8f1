/**
 * Encoding in plain TypeScript: the reference for the native encoder, and the encoder where there is none (browser).
 * Added tokens are cut out, the rest is split into pieces, and each piece is merged in the order of the ranks.
 */
import { forEachPiece } from "./pieces.ts";
import { byteIds, type Vocabulary } from "./vocabulary.ts";

/** Turns text into ids. */
export interface BpeEncoder {
  /** Without `allowSpecial`, added tokens in the text are encoded as plain text. */
  encode(text: string, allowSpecial: boolean): Int32Array;
  encodeMany(texts: readonly string[], allowSpecial: boolean): Int32Array[];
}

/** Pieces longer than this are rarely seen twice. */
const MAX_CACHED_UNITS = 64;
/** Entries of the cache; a full one is emptied, so that no text can make it grow. */
const MAX_CACHED_PIECES = 1 << 16;

const NONE = -1;
/** A queue entry is `rank * POSITIONS + position`: the lowest rank first, then the leftmost. */
const POSITIONS = 2 ** 32;

export function createPlainEncoder(vocabulary: Vocabulary): BpeEncoder {
  const merger = new Merger(vocabulary);
  const addedIds = new Map(vocabulary.added.map((token) => [token.content, token.id]));
  const addedPattern = patternOf([...addedIds.keys()]);
  const cache = new Map<string, readonly number[]>();

  const encodePiece = (piece: string): readonly number[] => {
    const known = cache.get(piece);
    if (known !== undefined) return known;
    const ids = merger.merge(piece);
    if (piece.length > MAX_CACHED_UNITS) return ids;
    if (cache.size === MAX_CACHED_PIECES) cache.clear();
    cache.set(piece, ids);
    return ids;
  };

  const encode = (text: string, allowSpecial: boolean): Int32Array => {
    const out: number[] = [];
    const encodeText = (words: string): void =>
      forEachPiece(words, (piece) => {
        for (const id of encodePiece(piece)) out.push(id);
      });
    const wellFormed = text.replaceAll(/\p{Surrogate}/gu, "\ufffd");
    if (!allowSpecial || addedPattern === undefined) encodeText(wellFormed);
    else {
      for (const part of wellFormed.split(addedPattern)) {
        const id = addedIds.get(part);
        if (id === undefined) encodeText(part);
        else out.push(id);
      }
    }
    return Int32Array.from(out);
  };

  return { encode, encodeMany: (texts, allowSpecial) => texts.map((text) => encode(text, allowSpecial)) };
}

/** Matches the longest of `contents`; as a capture, so that `split` keeps it. */
function patternOf(contents: readonly string[]): RegExp | undefined {
  if (contents.length === 0) return undefined;
  const longestFirst = contents.toSorted((a, b) => b.length - a.length);
  const escaped = longestFirst.map((content) => content.replaceAll(/[\\^$.*+?()[\]{}|/]/g, String.raw`\$&`));
  return new RegExp(`(${escaped.join("|")})`, "u");
}

/** Merges the bytes of one piece: the pair of lowest rank, the leftmost first, until none is left. */
class Merger {
  readonly #byteIds: Uint32Array;
  readonly #merges: Uint32Array;
  /** `left * #stride + right` to the rank of the pair. */
  readonly #ranks = new Map<number, number>();
  readonly #stride: number;
  readonly #utf8 = new TextEncoder();

  constructor(vocabulary: Vocabulary) {
    this.#byteIds = byteIds(vocabulary);
    this.#merges = vocabulary.merges;
    this.#stride = vocabulary.bytes.length;
    for (let rank = vocabulary.merges.length / 3 - 1; rank >= 0; rank--) {
      this.#ranks.set(this.#key(vocabulary.merges[rank * 3]!, vocabulary.merges[rank * 3 + 1]!), rank);
    }
  }

  /** O(n log n): a queue of pairs over a doubly linked list of symbols, whose ids become `NONE` when they are merged. */
  merge(piece: string): number[] {
    const ids = Array.from(this.#utf8.encode(piece), (byte) => this.#byteIds[byte]!);
    const next = ids.map((_, i) => (i + 1 < ids.length ? i + 1 : NONE));
    const previous = ids.map((_, i) => i - 1);
    const queue = new Queue();
    const rankAt = (left: number): number | undefined => {
      if (left === NONE || ids[left] === NONE || next[left] === NONE) return undefined;
      return this.#ranks.get(this.#key(ids[left]!, ids[next[left]!]!));
    };
    const enqueue = (left: number): void => {
      const rank = rankAt(left);
      if (rank !== undefined) queue.push(rank * POSITIONS + left);
    };
    for (let i = 0; i < ids.length; i++) enqueue(i);
    for (let entry = queue.pop(); entry !== undefined; entry = queue.pop()) {
      const rank = Math.floor(entry / POSITIONS);
      const left = entry % POSITIONS;
      if (rankAt(left) !== rank) continue;
      const right = next[left]!;
      const after = next[right]!;
      ids[left] = this.#merges[rank * 3 + 2]!;
      ids[right] = NONE;
      next[left] = after;
      if (after !== NONE) previous[after] = left;
      enqueue(left);
      enqueue(previous[left]!);
    }
    return ids.filter((id) => id !== NONE);
  }

  #key(left: number, right: number): number {
    return left * this.#stride + right;
  }
}

/** A binary heap of numbers, the smallest first. */
class Queue {
  readonly #heap: number[] = [];

  push(entry: number): void {
    const heap = this.#heap;
    let at = heap.length;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent]! <= entry) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = entry;
  }

  pop(): number | undefined {
    const heap = this.#heap;
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
}
