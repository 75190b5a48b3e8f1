import { expect, test } from "vitest";
import { TokenTable } from "./token-table.ts";

/** Spellings of three letters that are all different. */
const SPELLINGS = Array.from({ length: 26 ** 3 }, (_, i) =>
  String.fromCharCode(97 + Math.floor(i / 676), 97 + (Math.floor(i / 26) % 26), 97 + (i % 26)),
);

test("more bytes than the table begins with are kept, and found where hashes collide", () => {
  const tokens = new TokenTable(SPELLINGS.length);
  const ids = SPELLINGS.map((_, id) => id);
  expect(SPELLINGS.map((spelling, id) => tokens.spell(id, spelling))).toEqual(ids);
  expect(SPELLINGS.map((spelling) => tokens.find(spelling))).toEqual(ids);
  expect(SPELLINGS.map((spelling) => tokens.find(spelling[0]!, spelling.slice(1)))).toEqual(ids);
  expect(ids.map((id) => tokens.spellingOf(id))).toEqual(SPELLINGS);
  expect(tokens.find("ab")).toBe(-1);
  expect(tokens.find("abcd")).toBe(-1);
});

test("a table that is half full finds all of its tokens, and no other", () => {
  const tokens = new TokenTable(8);
  const own = SPELLINGS.slice(0, 8);
  for (const [id, spelling] of own.entries()) tokens.spell(id, spelling);
  expect(own.map((spelling) => tokens.find(spelling))).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(SPELLINGS.slice(8).every((spelling) => tokens.find(spelling) === -1)).toBe(true);
});

test("a spelling that is taken gives its holder, an empty or foreign one none", () => {
  const tokens = new TokenTable(4);
  expect(tokens.spell(0, "a")).toBe(0);
  expect(tokens.spell(1, "a")).toBe(0);
  expect(tokens.has(1)).toBe(false);
  for (const spelling of ["", " ", "a b", "你", "\u{1f600}"]) {
    expect(tokens.spell(2, spelling)).toBe(-1);
    expect(tokens.find(spelling)).toBe(-1);
  }
  expect(tokens.find("a", " ")).toBe(-1);
  expect([tokens.has(2), tokens.has(4), tokens.lengthOf(4)]).toEqual([false, false, 0]);
});

test("bytes that are set are read, and not found by their spelling", () => {
  const tokens = new TokenTable(2);
  const bytes = Uint8Array.from({ length: 10_000 }, (_, i) => i % 251);
  tokens.set(1, bytes);
  tokens.spell(0, "Ġa");
  expect([...tokens.bytesOf(1)]).toEqual([...bytes]);
  expect([...tokens.bytesOf(0)]).toEqual([0x20, 0x61]);
  expect(tokens.find("a")).toBe(-1);
});
