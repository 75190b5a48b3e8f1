/**
 * Counter-based random numbers: Philox4x32-10. A number depends only on its key and its place in the stream, so a
 * stream can be cut anywhere, saved as one integer and reproduced in any language.
 *
 * Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3 and Random123's test vectors.
 */

import { ConfigError } from "./errors.ts";

/** Four 32-bit words, each an integer in [0, 2³²). */
type Block = readonly [number, number, number, number];
type Key = readonly [lo: number, hi: number];

const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57] as const;
const KEY_STEPS = [0x9e3779b9, 0xbb67ae85] as const;
const ROUNDS = 10;

/** The upper 32 bits of the 64-bit product of two 32-bit words. Every step stays below 2⁵³ and is exact. */
function multiplyHigh(a: number, b: number): number {
  const low = Math.floor(((a & 0xffff) * b) / 0x10000);
  return Math.floor(((a >>> 16) * b + low) / 0x10000);
}

/** Philox4x32-10: 128 random bits from a 128-bit counter and a 64-bit key. Least significant words come first. */
export function philox4x32(counter: Block, key: Key): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIERS[0], c0);
    const low0 = Math.imul(MULTIPLIERS[0], c0);
    const high1 = multiplyHigh(MULTIPLIERS[1], c2);
    const low1 = Math.imul(MULTIPLIERS[1], c2);
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1 >>> 0;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0 >>> 0;
    k0 = (k0 + KEY_STEPS[0]) >>> 0;
    k1 = (k1 + KEY_STEPS[1]) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * The key of a named stream. It starts as (seed mod 2³², ⌊seed / 2³²⌋). The name's UTF-8 bytes, padded with zeros to
 * blocks of 12 (at least one), are read as three little-endian words w0, w1, w2 per block; each block replaces the key by
 * the first two words of `philox4x32([w0, w1, w2, byte length of the name], key)`.
 *
 * @param seed - integer in [0, 2⁵³).
 * @throws ConfigError when the seed is no such integer.
 */
export function streamKey(seed: number, stream: string): [lo: number, hi: number] {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new ConfigError("seed", "must be an integer from 0 to 9007199254740991", seed);
  }
  const name = new TextEncoder().encode(stream);
  const padded = new DataView(new ArrayBuffer(Math.max(1, Math.ceil(name.length / 12)) * 12));
  for (const [i, byte] of name.entries()) padded.setUint8(i, byte);
  let lo = seed >>> 0;
  let hi = Math.floor(seed / 2 ** 32);
  for (let at = 0; at < padded.byteLength; at += 12) {
    const [w0, w1, w2] = [0, 4, 8].map((word) => padded.getUint32(at + word, true)) as [number, number, number];
    [lo, hi] = philox4x32([w0, w1, w2, name.length], [lo, hi]);
  }
  return [lo, hi];
}

/** All there is to know of an `Rng`; plain data that can be saved as JSON. */
export interface RngState {
  readonly seed: number;
  readonly stream: string;
  /** Words drawn so far. */
  readonly position: number;
}

/**
 * A stream of random numbers keyed by seed and name.
 *
 * ```ts
 * const rng = new Rng(7, "data.shuffle");
 * rng.uniform();
 * const { seed, stream, position } = rng.state;
 * const resumed = new Rng(seed, stream, position); // goes on where rng stands
 * ```
 */
export class Rng {
  readonly #seed: number;
  readonly #stream: string;
  readonly #key: Key;
  #position: number;
  #block: Block = [0, 0, 0, 0];
  #blockIndex = -1;

  constructor(seed: number, stream: string, position = 0) {
    this.#seed = seed;
    this.#stream = stream;
    this.#key = streamKey(seed, stream);
    this.#position = position;
  }

  get state(): RngState {
    return { seed: this.#seed, stream: this.#stream, position: this.#position };
  }

  /** An integer in [0, 2³²). Word p of the stream is word p mod 4 of the block with counter ⌊p / 4⌋. */
  nextUint32(): number {
    const index = Math.floor(this.#position / 4);
    if (index !== this.#blockIndex) {
      this.#block = philox4x32([index >>> 0, Math.floor(index / 2 ** 32), 0, 0], this.#key);
      this.#blockIndex = index;
    }
    return this.#block[this.#position++ % 4]!;
  }

  /** A number in [0, 1) with 53 random bits; takes two words. */
  uniform(): number {
    const high = this.nextUint32() >>> 5;
    const low = this.nextUint32() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }
}
