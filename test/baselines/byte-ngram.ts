/**
 * A byte n-gram language model with interpolated Witten-Bell smoothing: the bar that a trained model must pass.
 *
 * `p(w | h) = (c(h, w) + T(h) · p(w | h')) / (c(h) + T(h))`, where c counts, T(h) is the number of distinct bytes seen
 * after h, and h' is h without its oldest symbol; below the empty history stands 1 / 256. Every document is on its own
 * and begins with a boundary symbol, which is seen by histories but never predicted.
 *
 * Source: Witten and Bell 1991, method C; Chen and Goodman 1998, "An empirical study of smoothing techniques", 2.7.
 */

const BOUNDARY = 256;
const SYMBOL_BITS = 9;
const NONE = -1;
const ROOT = 0;

/** A trie of histories: node n followed by symbol s is node `child(n, s)`. */
class HistoryTrie {
  /** Times the node's last symbol was seen after the rest; times anything was seen after it; distinct symbols after it. */
  counts = new Uint32Array(1 << 16);
  totals = new Uint32Array(1 << 16);
  types = new Uint16Array(1 << 16);
  /** Open addressing: key + 1 (0 is free) and node. */
  #keys = new Uint32Array(1 << 18);
  #nodes = new Int32Array(1 << 18);
  #size = 1;

  child(node: number, symbol: number): number {
    const slot = this.#slot((node << SYMBOL_BITS) | symbol);
    return this.#keys[slot] === 0 ? NONE : this.#nodes[slot]!;
  }

  childOrNew(node: number, symbol: number): number {
    const key = (node << SYMBOL_BITS) | symbol;
    const slot = this.#slot(key);
    if (this.#keys[slot] !== 0) return this.#nodes[slot]!;
    if (this.#size >= 1 << (32 - SYMBOL_BITS)) throw new RangeError("a trie of histories has fewer than 2²³ nodes");
    this.#keys[slot] = key + 1;
    this.#nodes[slot] = this.#size;
    if (this.#size * 2 > this.#keys.length) this.#growTable();
    if (this.#size >= this.counts.length) this.#growNodes();
    return this.#size++;
  }

  /** The slot of a key, or the free one where it belongs. */
  #slot(key: number): number {
    const mask = this.#keys.length - 1;
    const stored = (key + 1) >>> 0;
    let slot = Math.imul(key ^ (key >>> 15), 0x9e3779b1) >>> 8;
    for (slot &= mask; this.#keys[slot] !== 0 && this.#keys[slot] !== stored;) slot = (slot + 1) & mask;
    return slot;
  }

  #growTable(): void {
    const [keys, nodes] = [this.#keys, this.#nodes];
    this.#keys = new Uint32Array(keys.length * 2);
    this.#nodes = new Int32Array(nodes.length * 2);
    for (let i = 0; i < keys.length; i++) {
      if (keys[i] === 0) continue;
      const slot = this.#slot(keys[i]! - 1);
      this.#keys[slot] = keys[i]!;
      this.#nodes[slot] = nodes[i]!;
    }
  }

  #growNodes(): void {
    const grown = <A extends Uint32Array | Uint16Array>(from: A, to: A): A => {
      to.set(from);
      return to;
    };
    this.counts = grown(this.counts, new Uint32Array(this.counts.length * 2));
    this.totals = grown(this.totals, new Uint32Array(this.totals.length * 2));
    this.types = grown(this.types, new Uint16Array(this.types.length * 2));
  }
}

export class ByteNgram {
  readonly #trie = new HistoryTrie();
  readonly #order: number;

  /** @param order - longest history plus one, from 1; 5 for a 5-gram. */
  constructor(order: number) {
    this.#order = order;
  }

  /** Counts one document. */
  train(document: Uint8Array): void {
    const trie = this.#trie;
    // histories[k] is the node of the last k symbols; fewer stand here at the start of a document.
    let histories = [ROOT, trie.childOrNew(ROOT, BOUNDARY)].slice(0, this.#order);
    for (const byte of document) {
      const next = [ROOT];
      for (const history of histories) {
        const node = trie.childOrNew(history, byte);
        if (trie.counts[node]!++ === 0) trie.types[history]!++;
        trie.totals[history]!++;
        if (next.length < this.#order) next.push(node);
      }
      histories = next;
    }
  }

  /** Σ −log₂ p over the bytes of a document. */
  bits(document: Uint8Array): number {
    const trie = this.#trie;
    let histories = [ROOT, trie.child(ROOT, BOUNDARY)].slice(0, this.#order);
    let bits = 0;
    for (const byte of document) {
      const next = [ROOT];
      let p = 1 / 256;
      for (const history of histories) {
        const node = history === NONE ? NONE : trie.child(history, byte);
        if (history !== NONE && trie.totals[history] !== 0) {
          const count = node === NONE ? 0 : trie.counts[node]!;
          const types = trie.types[history]!;
          p = (count + types * p) / (trie.totals[history]! + types);
        }
        if (next.length < this.#order) next.push(node);
      }
      bits -= Math.log2(p);
      histories = next;
    }
    return bits;
  }
}

/** Bits per byte of the held-out documents under an n-gram model trained on the others. */
export function ngramBitsPerByte(training: Iterable<Uint8Array>, heldOut: Iterable<Uint8Array>, order = 5): number {
  const model = new ByteNgram(order);
  for (const document of training) model.train(document);
  let bits = 0;
  let bytes = 0;
  for (const document of heldOut) {
    bits += model.bits(document);
    bytes += document.length;
  }
  return bits / bytes;
}
