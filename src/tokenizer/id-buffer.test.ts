import { expect, test } from "vitest";
import { IdBuffer } from "./id-buffer.ts";

/** `count` ids from 0 on. */
const counted = (count: number): Int32Array => Int32Array.from({ length: count }, (_, id) => id);

// Memory begins with 1,024 ids, and 2^20 are kept for the next text.
const COUNTS = [3, 1024, 1025, 5000, 2 ** 20 + 1, 2, 2 ** 20, 2000];

test("ids come back in order however many there are, one text after the other", () => {
  const buffer = new IdBuffer();
  for (const count of COUNTS) {
    for (let id = 0; id < count; id++) buffer.push(id);
    expect(Buffer.compare(Buffer.from(buffer.take().buffer), Buffer.from(counted(count).buffer))).toBe(0);
  }
  expect(buffer.take()).toHaveLength(0);
});

test.each([1, 16, 17, 700, 2 ** 21])("so do those that come %i at once", (atOnce) => {
  const buffer = new IdBuffer();
  for (const count of COUNTS) {
    const ids = counted(count);
    for (let id = 0; id < count; id += atOnce) buffer.append(ids.subarray(id, id + atOnce));
    expect(Buffer.compare(Buffer.from(buffer.take().buffer), Buffer.from(ids.buffer))).toBe(0);
  }
});

test("what is cleared does not stand before what follows", () => {
  const buffer = new IdBuffer();
  buffer.append(counted(2 ** 20 + 1));
  buffer.clear();
  buffer.push(7);
  expect([...buffer.take()]).toEqual([7]);
});
