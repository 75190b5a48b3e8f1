/**
 * A keyed permutation of [0, n) that needs no table: a Feistel network over the smallest even number of bits that holds
 * n, walked until the value falls below n. The place of every number is known without the others, so an order over any
 * number of windows costs no memory and can be entered anywhere.
 *
 * Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", cycle walking over a generalised Feistel cipher.
 */

import { invariant } from "../core/errors.ts";
import { philox4x32, streamKey } from "../core/rng.ts";

/** Four rounds make a strong pseudo-random permutation (Luby and Rackoff 1988); two more cover the very short halves. */
const ROUNDS = 6;

/**
 * @param size - numbers to permute, an integer in [1, 2⁵²].
 * @param round - which permutation of the seed's sequence, an integer from 0; an epoch number.
 * @returns a bijection of [0, size).
 */
export function createPermutation(size: number, seed: number, round: number): (index: number) => number {
  invariant(Number.isSafeInteger(size) && size >= 1 && size <= 2 ** 52, "a permutation has from 1 to 2⁵² numbers");
  const key = streamKey(seed, "data.order");
  const half = 2 ** Math.max(1, Math.ceil(Math.log2(size) / 2));
  const [roundLow, roundHigh] = [round >>> 0, Math.floor(round / 2 ** 32)];

  const encipher = (value: number): number => {
    let left = Math.floor(value / half);
    let right = value % half;
    for (let i = 0; i < ROUNDS; i++) {
      const mixed = philox4x32([right, i, roundLow, roundHigh], key)[0] % half;
      [left, right] = [right, (left + mixed) % half];
    }
    return left * half + right;
  };

  return (index) => {
    invariant(index >= 0 && index < size, "an index lies inside its permutation");
    let value = encipher(index);
    while (value >= size) value = encipher(value);
    return value;
  };
}
