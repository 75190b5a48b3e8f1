import { expect, test } from "vitest";
import { DisposedError, InternalError } from "../core/errors.ts";
import type { Handle, Operand } from "./contract.ts";
import { encodeCall } from "./encode.ts";
import { record } from "./recording.ts";
import { createReferenceBackend } from "./reference/backend.ts";

const at = (handle: Handle): Operand => ({ handle, offset: 0, dtype: "f32" });

test("a list runs when it is replayed, on what its buffers hold then", async () => {
  const backend = createReferenceBackend();
  const x = backend.alloc(4);
  let recorder = backend;
  const { recording, result: y } = record(backend, (inner) => {
    recorder = inner;
    const y = inner.alloc(4);
    inner.run(encodeCall("add", { a: at(x), b: at(x), y: at(y) }, { n: 1 }));
    return y;
  });
  for (const value of [1, 4]) {
    backend.write(x, 0, new Uint8Array(Float32Array.of(value).buffer));
    recording.replay();
    expect([...new Float32Array((await recorder.read(y, 0, 4)).buffer)]).toEqual([2 * value]);
  }
  expect(() => recorder.run(new Float64Array())).toThrow(InternalError);
  expect(() => recorder.alloc(4)).toThrow(InternalError);
  recording[Symbol.dispose]();
  expect(() => recording.replay()).toThrow(DisposedError);
  expect(backend.stats().liveBuffers).toBe(1);
});

test("memory that is freed while a list is recorded serves again in it, and is given back once", () => {
  const backend = createReferenceBackend();
  const { recording, result } = record(backend, (recorder) => {
    const first = recorder.alloc(64);
    recorder.free(first);
    const second = recorder.alloc(64);
    return { isReused: first === second, isOther: recorder.alloc(64) !== second };
  });
  expect(result).toEqual({ isReused: true, isOther: true });
  expect(backend.stats().liveBytes).toBe(128);
  recording[Symbol.dispose]();
  recording[Symbol.dispose]();
  expect(backend.stats().liveBytes).toBe(0);
});

test("nothing is read or written while a list is recorded, and what fails holds no memory", () => {
  const backend = createReferenceBackend();
  const x = backend.alloc(4);
  expect(() =>
    record(backend, (recorder) => {
      recorder.alloc(8);
      return recorder.readSync(x, 0, 4);
    }),
  ).toThrow(InternalError);
  expect(() => record(backend, (recorder) => recorder.write(x, 0, Uint8Array.of(1)))).toThrow(InternalError);
  expect(backend.stats().liveBytes).toBe(4);
});

test("a replay whose operand is gone is refused", () => {
  const backend = createReferenceBackend();
  const x = backend.alloc(4);
  const { recording } = record(backend, (recorder) =>
    recorder.run(encodeCall("fill", { y: at(x) }, { n: 1, value: 2 })),
  );
  recording.replay();
  backend.free(x);
  expect(() => recording.replay()).toThrow(/a handle is live/);
  recording[Symbol.dispose]();
});
