/** The bytes of all tokens by id in one buffer, and the way back: a vocabulary holds more than 100,000 tokens. */
import { ALPHABET_BYTES, BYTE_CHARACTERS } from "./byte-alphabet.ts";

const NONE = -1;
/** Longer than the character of any byte in the alphabet. */
const ALPHABET_END = 0x180;

const BYTE_OF_UNIT = new Int16Array(ALPHABET_END).fill(NONE);
for (const byte of ALPHABET_BYTES) BYTE_OF_UNIT[BYTE_CHARACTERS[byte]!.charCodeAt(0)] = byte;

export class TokenTable {
  /** The number of ids. */
  readonly size: number;
  #bytes = new Uint8Array(1 << 12);
  #used = 0;
  readonly #starts: Uint32Array;
  readonly #ends: Uint32Array;
  /** Ids by the hash of their bytes, at most half full. */
  readonly #slots: Int32Array;

  constructor(size: number) {
    this.size = size;
    this.#starts = new Uint32Array(size);
    this.#ends = new Uint32Array(size);
    this.#slots = new Int32Array(2 ** Math.ceil(Math.log2(Math.max(2, size * 2)))).fill(NONE);
  }

  /**
   * Gives `id` the bytes that `spelling` stands for in the byte alphabet.
   * @returns `id`, or the one that has these bytes already, or -1 when the spelling is empty or leaves the alphabet.
   */
  spell(id: number, spelling: string): number {
    const [start, end] = [this.#used, this.#write(spelling, this.#used)];
    if (end <= start) return NONE;
    const slot = this.#slotOf(start, end);
    if (this.#slots[slot] !== NONE) return this.#slots[slot]!;
    this.#slots[slot] = id;
    this.#place(id, start, end);
    return id;
  }

  /** Gives `id` bytes under which `find` does not look for it. */
  set(id: number, bytes: Uint8Array): void {
    const start = this.#used;
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, start);
    this.#place(id, start, start + bytes.length);
  }

  /** The id with the bytes of these spellings, one behind the other; -1 when there is none. */
  find(first: string, second = ""): number {
    const start = this.#used;
    const middle = this.#write(first, start);
    const end = middle === NONE ? NONE : this.#write(second, middle);
    return end <= start ? NONE : this.#slots[this.#slotOf(start, end)]!;
  }

  /** Whether `id` is one of the table and has bytes. */
  has(id: number): boolean {
    return this.lengthOf(id) > 0;
  }

  /** The bytes of `id`, a view of the table; none when it has none. */
  bytesOf(id: number): Uint8Array {
    return this.#bytes.subarray(this.#starts[id] ?? 0, this.#ends[id] ?? 0);
  }

  lengthOf(id: number): number {
    return (this.#ends[id] ?? 0) - (this.#starts[id] ?? 0);
  }

  /** The bytes of `id` in the byte alphabet. */
  spellingOf(id: number): string {
    return Array.from(this.bytesOf(id), (byte) => BYTE_CHARACTERS[byte]!).join("");
  }

  #place(id: number, start: number, end: number): void {
    this.#starts[id] = start;
    this.#ends[id] = end;
    this.#used = end;
  }

  #reserve(length: number, from = this.#used): void {
    if (from + length <= this.#bytes.length) return;
    const grown = new Uint8Array(2 ** Math.ceil(Math.log2(from + length)));
    grown.set(this.#bytes);
    this.#bytes = grown;
  }

  /** Writes the bytes of `spelling` from `at` on; where they end, -1 when it leaves the alphabet. */
  #write(spelling: string, at: number): number {
    this.#reserve(spelling.length, at);
    const bytes = this.#bytes;
    for (let i = 0; i < spelling.length; i++) {
      const unit = spelling.charCodeAt(i);
      const byte = unit < ALPHABET_END ? BYTE_OF_UNIT[unit]! : NONE;
      if (byte === NONE) return NONE;
      bytes[at + i] = byte;
    }
    return at + spelling.length;
  }

  /** The slot of the id with the bytes from `start` to `end`, or the free one where it belongs. */
  #slotOf(start: number, end: number): number {
    const mask = this.#slots.length - 1;
    let hash = end - start;
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ this.#bytes[i]!, 0x01000193);
    let slot = (hash ^ (hash >>> 15)) & mask;
    while (this.#slots[slot] !== NONE && !this.#isEqual(this.#slots[slot]!, start, end)) slot = (slot + 1) & mask;
    return slot;
  }

  #isEqual(id: number, start: number, end: number): boolean {
    const from = this.#starts[id]!;
    if (this.#ends[id]! - from !== end - start) return false;
    for (let i = 0; i < end - start; i++) if (this.#bytes[from + i] !== this.#bytes[start + i]) return false;
    return true;
  }
}
