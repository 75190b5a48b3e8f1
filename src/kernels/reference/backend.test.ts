import { expect, test } from "vitest";
import { encodeCall, type Operand } from "../index.ts";
import { createReferenceBackend } from "./backend.ts";

const at = (handle: number, offset = 0): Operand => ({ handle, offset, dtype: "f32" });

test("live and peak bytes are exact", () => {
  const backend = createReferenceBackend();
  const a = backend.alloc(100);
  const b = backend.alloc(28);
  backend.free(a);
  expect(backend.stats()).toMatchObject({ liveBytes: 28, peakBytes: 128, liveBuffers: 1 });
  backend.resetPeak();
  expect(backend.stats().peakBytes).toBe(28);
  backend.free(b);
  expect(backend.stats()).toMatchObject({ liveBytes: 0, liveBuffers: 0 });
});

test("unwritten memory reads as NaN", () => {
  const backend = createReferenceBackend();
  const handle = backend.alloc(8);
  expect([...new Float32Array(backend.readSync(handle, 0, 8).buffer)]).toEqual([NaN, NaN]);
});

test("a list of calls runs in order", async () => {
  const backend = createReferenceBackend();
  const y = backend.alloc(8);
  const words = [
    encodeCall("fill", { y: at(y) }, { n: 2, value: 3 }),
    encodeCall("axpy", { x: at(y, 1), y: at(y) }, { n: 1, scale: 1 }),
  ];
  backend.run(Float64Array.from(words.flatMap((call) => [...call])));
  expect([...new Float32Array((await backend.read(y, 0, 8)).buffer)]).toEqual([6, 3]);
});

test("an operand that leaves its buffer, a dead handle and an operand left out are refused", () => {
  const backend = createReferenceBackend();
  const y = backend.alloc(8);
  expect(() => backend.run(encodeCall("fill", { y: at(y, 1) }, { n: 2, value: 0 }))).toThrowErrorMatchingInlineSnapshot(
    `[InternalError: invariant: fill.y lies in its buffer of 8 bytes, got elements 1 to 3; this is a bug in Fathom]`,
  );
  expect(() => backend.run(encodeCall("fill", { y: at(0) }, { n: 2, value: 0 }))).toThrowErrorMatchingInlineSnapshot(
    `[InternalError: invariant: fill.y is given; this is a bug in Fathom]`,
  );
  backend.free(y);
  expect(() => backend.run(encodeCall("fill", { y: at(y) }, { n: 2, value: 0 }))).toThrowErrorMatchingInlineSnapshot(
    `[InternalError: invariant: a handle is live when it is used, got 1; this is a bug in Fathom]`,
  );
  expect(() => backend.readSync(y, 0, 1)).toThrowErrorMatchingInlineSnapshot(
    `[InternalError: invariant: a handle is live when it is used, got 1; this is a bug in Fathom]`,
  );
});

test("a copy outside the buffer is refused", () => {
  const backend = createReferenceBackend();
  const y = backend.alloc(8);
  expect(() => backend.write(y, 4, new Uint8Array(5))).toThrowErrorMatchingInlineSnapshot(
    `[InternalError: invariant: a copy of at most 67108864 bytes lies in its buffer of 8 bytes, got 4 to 9; this is a bug in Fathom]`,
  );
});

test("an allocation that cannot be had is a MemoryError", () => {
  expect(() => createReferenceBackend().alloc(2 ** 50)).toThrowErrorMatchingInlineSnapshot(
    `[MemoryError: reference backend: needs 1125899906842624 bytes (1048576.0 GiB); choose a smaller model or batch]`,
  );
});
