import { afterEach, expect, test, vi } from "vitest";
import { createByteTokenizer, FIRST_BYTE_ID } from "../../test/helpers/byte-tokenizer.ts";
import { Merger } from "./merges.ts";

afterEach(() => void vi.restoreAllMocks());

test("a text that fails leaves nothing before the ids of the next one", () => {
  const tokenizer = createByteTokenizer();
  const merge = vi.spyOn(Merger.prototype, "merge");
  merge
    .mockImplementationOnce(() => [1, 2])
    .mockImplementationOnce(() => {
      throw new RangeError("Array buffer allocation failed");
    });
  expect(() => tokenizer.encode("one two")).toThrow("allocation failed");
  expect([...tokenizer.encode("a")]).toEqual([FIRST_BYTE_ID + 97]);
});
