/** What every backend refuses, and what the two sides of the native boundary agree on. */

import { describe, expect, test } from "vitest";
import { InternalError } from "../../src/core/index.ts";
import { createReferenceBackend, encodeCall, type Operand } from "../../src/kernels/index.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";

const backends = [createReferenceBackend(), createNativeBackend()];
const f32At = (handle: number, offset = 0): Operand => ({ handle, offset, dtype: "f32" });
const fill = (y: Operand, n: number): Float64Array => encodeCall("fill", { y }, { n, value: 0 });

describe.each(backends)("the $name backend", (backend) => {
  test("refuses an operand that leaves its buffer", () => {
    const y = backend.alloc(40);
    expect(() => backend.run(fill(f32At(y), 11))).toThrow(InternalError);
    expect(() => backend.run(fill(f32At(y, 1), 10))).toThrow(InternalError);
    expect(() => backend.run(fill(f32At(y, -1), 1))).toThrow(InternalError);
    expect(() => backend.run(fill(f32At(y, 2 ** 52), 1))).toThrow(InternalError);
    expect(() => backend.run(fill(f32At(y), 2 ** 53))).toThrow(InternalError);
    expect(() => backend.run(fill(f32At(y), 0.5))).toThrow(InternalError);
    backend.free(y);
  });

  test("refuses a dead handle, one that never lived, and one freed twice", () => {
    const y = backend.alloc(8);
    backend.free(y);
    expect(() => backend.run(fill(f32At(y), 1))).toThrow(InternalError);
    expect(() => backend.run(fill(f32At(0), 1))).toThrow(InternalError);
    expect(() => backend.run(fill(f32At(2 ** 40 + 5), 1))).toThrow(InternalError);
    expect(() => backend.free(y)).toThrow(InternalError);
    expect(() => backend.write(y, 0, new Uint8Array(1))).toThrow(InternalError);
    expect(() => backend.readSync(y, 0, 1)).toThrow(InternalError);
  });

  test("refuses a copy outside its buffer", async () => {
    const y = backend.alloc(8);
    expect(() => backend.write(y, 4, new Uint8Array(5))).toThrow(InternalError);
    expect(() => backend.readSync(y, -1, 1)).toThrow(InternalError);
    await expect(backend.read(y, 8, 1)).rejects.toThrow(InternalError);
    backend.free(y);
  });

  test("refuses an unknown opcode, a wrong length, an unknown dtype and words that end too early", () => {
    const y = backend.alloc(8);
    const words = fill(f32At(y), 2);
    expect(() => backend.run(words.with(0, 999))).toThrow(InternalError);
    expect(() => backend.run(words.with(1, words.length + 1))).toThrow(InternalError);
    expect(() => backend.run(words.with(4, 17))).toThrow(InternalError);
    expect(() => backend.run(words.slice(0, -1))).toThrow(InternalError);
    backend.free(y);
  });

  test("refuses indices where there are numbers, and numbers where there are indices", () => {
    const y = backend.alloc(64);
    expect(() => backend.run(fill({ handle: y, offset: 0, dtype: "i32" }, 2))).toThrow(InternalError);
    const gather = encodeCall(
      "gatherRows",
      { x: f32At(y), index: f32At(y, 4), y: f32At(y, 8) },
      { rows: 1, d: 1, xRows: 4 },
    );
    expect(() => backend.run(gather)).toThrow(InternalError);
    backend.free(y);
  });

  test("refuses a row index that does not exist and an operand that is left out", () => {
    const y = backend.alloc(64);
    backend.write(y, 0, new Uint8Array(Int32Array.of(4, -1, 0).buffer));
    const gather = (offset: number): Float64Array =>
      encodeCall(
        "gatherRows",
        { x: f32At(y, 4), index: { handle: y, offset, dtype: "i32" }, y: f32At(y, 12) },
        { rows: 1, d: 1, xRows: 4 },
      );
    expect(() => backend.run(gather(0))).toThrow(InternalError);
    expect(() => backend.run(gather(1))).toThrow(InternalError);
    backend.run(gather(2));
    expect(() => backend.run(fill(f32At(y), 1).with(2, 0))).toThrow(InternalError);
    backend.free(y);
  });

  test("refuses to write what the same call reads or writes elsewhere", () => {
    const y = backend.alloc(64);
    expect(() => backend.run(encodeCall("axpy", { x: f32At(y), y: f32At(y, 3) }, { n: 4, scale: 1 }))).toThrow(
      InternalError,
    );
    backend.run(encodeCall("axpy", { x: f32At(y), y: f32At(y, 4) }, { n: 4, scale: 1 }));
    backend.free(y);
  });

  test("refuses weights that are no whole blocks, leave their buffer, have no type or scales of no size", () => {
    const [x, w] = [backend.alloc(4 * 1024), backend.alloc(144 * 3)];
    const look = (table: Operand, numbers: { vocab: number; scaleRows?: number }, scale?: Operand): Float64Array =>
      encodeCall(
        "embedding",
        { ids: { handle: x, offset: 0, dtype: "i32" }, table, y: f32At(x, 512), scale },
        { n: 1, d: 256, scaleRows: 1, scaleCols: 128, ...numbers },
      );
    const blocks = (offset: number): Operand => ({ handle: w, offset, dtype: "q4_k" });
    backend.write(x, 0, new Uint8Array(4));
    backend.run(look(blocks(256), { vocab: 2 }));
    expect(() => backend.run(look(blocks(256), { vocab: 3 }))).toThrow(InternalError);
    expect(() => backend.run(look(blocks(32), { vocab: 1 }))).toThrow(/embedding.*table.*block/);
    expect(() => backend.run(look({ ...blocks(0), dtype: "i32" }, { vocab: 1 }))).toThrow(InternalError);
    expect(() => backend.run(look(blocks(0), { vocab: 1 }).with(7, 17))).toThrow(InternalError);
    backend.run(look(blocks(0), { vocab: 1 }, f32At(x, 8)));
    expect(() => backend.run(look(blocks(0), { vocab: 1, scaleRows: 0 }, f32At(x, 8)))).toThrow(/scale/);
    expect(() => backend.run(look(blocks(0), { vocab: 3 }, f32At(x, 1020)))).toThrow(InternalError);
    backend.free(x);
    backend.free(w);
  });

  test("counts live and peak bytes", () => {
    const before = backend.stats();
    const y = backend.alloc(4096);
    expect(backend.stats().liveBytes).toBeGreaterThanOrEqual(before.liveBytes + 4096);
    expect(backend.stats().liveBuffers).toBe(before.liveBuffers + 1);
    backend.free(y);
    expect(backend.stats().liveBytes).toBe(before.liveBytes);
    expect(backend.stats().peakBytes).toBeGreaterThanOrEqual(before.liveBytes + 4096);
    backend.resetPeak();
    expect(backend.stats().peakBytes).toBe(before.liveBytes);
  });
});
