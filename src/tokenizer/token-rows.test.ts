import { expect, test } from "vitest";
import { checkTokenRows } from "./index.ts";

test("the surplus rows of V3's embedding are those behind its 128,815 ids", () => {
  const surplus = checkTokenRows({ vocabSize: 128_815 }, 129_280, "tokenizer.json");
  expect([surplus.length, surplus[0], surplus.at(-1)]).toEqual([465, 128_815, 129_279]);
  expect(checkTokenRows({ vocabSize: 300 }, 300, "tokenizer.json")).toEqual([]);
});

test("an id beyond the rows is refused", () => {
  expect(() => checkTokenRows({ vocabSize: 301 }, 300, "m/tokenizer.json")).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: m/tokenizer.json: must have ids below 300, the rows of the embedding, got 300; the tokenizer belongs to another model]`,
  );
});
