import { expect, test } from "vitest";
import { fuzzHeaders } from "./fuzz-headers.ts";

test("2,000 damaged files of each format are read or refused with a place, within their own size", async () => {
  const { files, read, refused, faults } = await fuzzHeaders(2000, 7);
  expect(faults).toEqual([]);
  expect([files, read + refused]).toEqual([4000, 4000]);
  // Damage that were never noticed, or noticed at the first byte, would show nothing.
  expect(read).toBeGreaterThan(100);
  expect(refused).toBeGreaterThan(2000);
});
