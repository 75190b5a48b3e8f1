import { expect, test } from "vitest";
import { asCouplets, verseForm } from "./verse.ts";

const QUATRAIN = "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。";

test("a quatrain of five characters is recognised, with white space around it", () => {
  expect(verseForm(QUATRAIN)).toEqual({ lines: 4, chars: 5 });
  expect(verseForm(`\n${QUATRAIN}\n`)).toEqual({ lines: 4, chars: 5 });
});

test("eight lines of seven characters are recognised, questions too", () => {
  const couplet = "錦瑟無端五十弦，一弦一柱思華年？";
  expect(verseForm([couplet, couplet, couplet, couplet].join("\n"))).toEqual({ lines: 8, chars: 7 });
});

test.each([
  ["an uneven line", QUATRAIN.replace("黃河", "黃")],
  ["three couplets", `${QUATRAIN}\n${QUATRAIN.split("\n")[0]}`],
  ["six characters in every line", "一二三四五六，一二三四五六。\n一二三四五六，一二三四五六。"],
  ["a missing last mark", QUATRAIN.slice(0, -1)],
  ["a full stop inside a couplet", QUATRAIN.replace("，", "。")],
  ["a lacuna", QUATRAIN.replace("山", "□")],
  ["no text", ""],
])("%s is no regulated verse", (_, poem) => {
  expect(verseForm(poem)).toBeUndefined();
});

test("couplets are put on rows of their own whatever the paragraphs were", () => {
  expect(asCouplets([QUATRAIN.replace("\n", "")])).toBe(QUATRAIN);
  expect(asCouplets(QUATRAIN.split(/(?<=，)|\n/))).toBe(QUATRAIN);
});

test("text with anything else than lines and marks stays as it is", () => {
  expect(asCouplets(["一二三□五，", "一二三四五。"])).toBe("一二三□五，一二三四五。");
});
