/** Merging in TypeScript against the plain rule; the tables and pieces are those of `native/tokenizer/src/merges.rs`. */
import { describe, expect, test } from "vitest";
import { BYTE_CHARACTERS } from "./byte-alphabet.ts";
import { Merger } from "./merges.ts";
import { PairRanks } from "./pair-ranks.ts";
import { TokenTable } from "./token-table.ts";
import type { Vocabulary } from "./vocabulary.ts";

type Merge = readonly [left: number, right: number, merged: number];

const [A, B, C] = [97, 98, 99];

/** In an order that no training gives: later merges can make pairs of lower rank. */
const UNORDERED: readonly Merge[] = [
  [258, A, 262],
  [256, 257, 261],
  [A, B, 256],
  [C, A, 257],
  [256, A, 258],
  [256, 256, 259],
  [A, A, 260],
];

/** As training gives them: a token is made before it is merged further. */
const ORDERED: readonly Merge[] = [
  [A, A, 256],
  [256, 256, 257],
  [A, B, 258],
  [258, C, 259],
  [257, 258, 260],
  [B, C, 261],
  [256, A, 262],
];

function mergerOf(merges: readonly Merge[]): Merger {
  const tokens = new TokenTable(BYTE_CHARACTERS.length);
  for (const [byte, character] of BYTE_CHARACTERS.entries()) tokens.spell(byte, character);
  return new Merger({ tokens, merges: Uint32Array.from(merges.flat()) } as unknown as Vocabulary);
}

/** The rule itself: all pairs looked at anew for each merge. */
function plain(merges: readonly Merge[], piece: string): number[] {
  const ids = [...new TextEncoder().encode(piece)];
  for (;;) {
    const found = merges.find(([left, right]) => ids.some((id, i) => id === left && ids[i + 1] === right));
    if (found === undefined) return ids;
    const at = ids.findIndex((id, i) => id === found[0] && ids[i + 1] === found[1]);
    ids.splice(at, 2, found[2]);
  }
}

/** Letters drawn by the generator of the Rust test. */
function drawnPieces(): string[] {
  let state = 1;
  const letter = (): string => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return "aabbc"[(state >>> 16) % 5]!;
  };
  return Array.from({ length: 200 }, (_, i) => Array.from({ length: i + 1 }, letter).join(""));
}

describe.each([
  ["ordered", ORDERED, true],
  ["not ordered", UNORDERED, false],
] as const)("merges that are %s", (_, merges, isOrdered) => {
  const merger = mergerOf(merges);

  test("are known as such", () => {
    expect(new PairRanks(Uint32Array.from(merges.flat())).isOrdered).toBe(isOrdered);
  });

  test("follow the plain rule in short and long pieces", () => {
    for (const piece of drawnPieces()) expect(Array.from(merger.merge(piece)), piece).toEqual(plain(merges, piece));
  });

  test.each(["a", "ab", "aab", "abc", "aba", "aaaaaaab"])("follow it in runs of %s", (unit) => {
    for (let repeats = 60; repeats < 90; repeats++) {
      const piece = unit.repeat(repeats);
      expect(Array.from(merger.merge(piece)), `${repeats} times`).toEqual(plain(merges, piece));
    }
  });
});
