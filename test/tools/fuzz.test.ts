import { expect, test } from "vitest";
import { fuzzArguments } from "../../scripts/fuzz.ts";

test("fuzzing takes whole numbers of files and a seed", () => {
  expect(fuzzArguments(["20", "7"])).toEqual({ files: 20, seed: 7 });
  expect(fuzzArguments([]).files).toBe(100_000);
});

test.each([
  [["abc"], /FILES: must be a whole number of at least 1, got "abc"/],
  [["0"], /FILES: .*got "0"/],
  [["1.5"], /FILES: .*got "1\.5"/],
  [["20", "x"], /SEED: must be a whole number of at least 0, got "x"/],
])("fuzzing %j is refused, not passed", (words, message) => {
  expect(() => fuzzArguments(words)).toThrow(message);
});
