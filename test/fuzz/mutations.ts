/** Damages files in the ways that break parsers: flipped bits, lying numbers, cuts, copies, swapped pieces. */

import type { Rng } from "../../src/core/rng.ts";

/** Numbers at the edges of what parsers store and add. */
const EDGES: readonly bigint[] = [
  0n,
  1n,
  255n,
  65_535n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 64n - 1n,
];
const EDGE_TEXTS = [
  "-1",
  "0",
  "1e400",
  "9007199254740993",
  "[",
  "]",
  "{",
  "}",
  '"',
  "\\",
  "null",
  "\u0000",
  "[[[[[[[[",
  ",",
  ":",
];

type Mutation = (bytes: Uint8Array, rng: Rng) => Uint8Array;

function below(rng: Rng, n: number): number {
  return Math.floor(rng.uniform() * n);
}

function splice(bytes: Uint8Array, at: number, removed: number, added: Uint8Array): Uint8Array {
  const end = Math.min(bytes.length, at + removed);
  const out = new Uint8Array(at + added.length + bytes.length - end);
  out.set(bytes.subarray(0, at));
  out.set(added, at);
  out.set(bytes.subarray(end), at + added.length);
  return out;
}

/** Most faults are in the header, which stands first. */
function place(bytes: Uint8Array, rng: Rng): number {
  return below(rng, rng.uniform() < 0.8 ? Math.min(bytes.length, 400) : bytes.length);
}

const MUTATIONS: readonly Mutation[] = [
  (bytes, rng) => {
    const at = place(bytes, rng);
    return splice(bytes, at, 1, Uint8Array.of((bytes[at] ?? 0) ^ (1 << below(rng, 8))));
  },
  (bytes, rng) => splice(bytes, place(bytes, rng), 1, Uint8Array.of(below(rng, 256))),
  (bytes, rng) => {
    const size = [1, 2, 4, 8][below(rng, 4)]!;
    const number = new Uint8Array(8);
    new DataView(number.buffer).setBigUint64(0, EDGES[below(rng, EDGES.length)]!, true);
    return splice(bytes, place(bytes, rng), size, number.subarray(0, size));
  },
  (bytes, rng) => {
    const text = new TextEncoder().encode(EDGE_TEXTS[below(rng, EDGE_TEXTS.length)]);
    return splice(bytes, place(bytes, rng), below(rng, 4), text);
  },
  (bytes, rng) => bytes.slice(0, below(rng, bytes.length + 1)),
  (bytes, rng) => splice(bytes, place(bytes, rng), below(rng, 20), new Uint8Array(0)),
  (bytes, rng) => {
    const from = place(bytes, rng);
    return splice(bytes, place(bytes, rng), 0, bytes.slice(from, from + below(rng, 80)));
  },
  (bytes, rng) => splice(bytes, bytes.length, 0, new Uint8Array(below(rng, 100))),
];

/** A file with one to four faults. */
export function mutate(bytes: Uint8Array, rng: Rng): Uint8Array {
  let out: Uint8Array = bytes;
  for (let faults = 1 + below(rng, 4); faults > 0; faults--) {
    if (out.length > 0) out = MUTATIONS[below(rng, MUTATIONS.length)]!(out, rng);
  }
  return out;
}
