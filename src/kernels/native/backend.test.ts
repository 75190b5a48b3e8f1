import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ConfigError, FormatError, InternalError, IoError, MemoryError, UnsupportedError } from "../../core/errors.ts";
import { encodeCall, LAYOUTS } from "../encode.ts";
import type { Handle, Operand } from "../contract.ts";
import { loadAddon } from "./addon.ts";
import { createNativeBackend, nativeIsas } from "./backend.ts";

const backend = createNativeBackend();

const f32 = (handle: Handle, offset = 0): Operand => ({ handle, offset, dtype: "f32" });

function withFile(bytes: Uint8Array, use: (path: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "fathom-"));
  try {
    const path = join(folder, "weights");
    writeFileSync(path, bytes);
    use(path);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("the native table of kernels is the contract's", () => {
  const table = loadAddon().kernelTable();
  const native = table.map(({ op, name, operands, numbers }) => ({ op, name, operands, numbers }));
  const contract = Object.entries(LAYOUTS).map(([name, layout]) => ({
    op: layout.op,
    name,
    operands: layout.operands.length,
    numbers: layout.numbers.length,
  }));
  expect(native).toEqual(contract);
});

test("an instruction set that the machine lacks is refused with those it has", () => {
  expect(nativeIsas()).toContain("portable");
  expect(() => createNativeBackend({ isa: "sse9" })).toThrow(UnsupportedError);
  expect(() => createNativeBackend({ isa: "sse9" })).toThrow(/portable/);
  expect(() => createNativeBackend({ threads: 0 })).toThrow(ConfigError);
});

test("more memory than there is gives a MemoryError with both figures", () => {
  expect(() => backend.alloc(2 ** 50)).toThrow(MemoryError);
  expect(() => backend.alloc(2 ** 50)).toThrow(
    /needs 1125899906842624 bytes \(1048576\.0 GiB\) of \d+ bytes \([\d.]+ [MG]iB\) available/,
  );
});

test("freed memory goes to the pool and comes back for the same size", () => {
  const size = 3 << 20;
  backend.free(backend.alloc(size));
  const pooled = backend.stats().pooledBytes;
  expect(pooled).toBeGreaterThanOrEqual(size);
  const again = backend.alloc(size);
  expect(backend.stats().pooledBytes).toBe(pooled - size);
  backend.free(again);
});

test("an output that overlaps an input is refused", () => {
  const x = backend.alloc(4 * 16);
  const add = (to: number): Float64Array => encodeCall("add", { a: f32(x), b: f32(x), y: f32(x, to) }, { n: 8 });
  backend.run(add(8));
  for (const to of [0, 7]) expect(() => backend.run(add(to))).toThrow(/add: y must not overlap/);
  backend.free(x);
});

test("rows of C that would overlap are refused", () => {
  const [a, c] = [backend.alloc(4 * 64), backend.alloc(4 * 64)];
  const product = (ldc: number, batch: number, strideC: number): Float64Array =>
    encodeCall(
      "matmul",
      { a: f32(a), b: f32(a), c: f32(c) },
      {
        ...{ m: 2, n: 3, k: 4, transA: 0, transB: 0, lda: 4, ldb: 3, ldc },
        ...{ batch, strideA: 0, strideB: 0, strideC, accumulate: 0, compute: 0 },
      },
    );
  for (const call of [product(3, 1, 0), product(3, 2, 6), product(6, 2, 3)]) backend.run(call);
  for (const call of [product(2, 1, 0), product(3, 2, 5), product(5, 2, 3), product(3, 2, 0)]) {
    expect(() => backend.run(call)).toThrow(/matmul: rows of C must not overlap/);
  }
  backend.free(a);
  backend.free(c);
});

test("offsets of experts beyond the rows and a row index outside x are refused", () => {
  const [x, ints] = [backend.alloc(4 * 64), backend.alloc(4 * 8)];
  const grouped = (offsets: readonly number[], index: readonly number[]): Float64Array => {
    backend.write(ints, 0, new Uint8Array(Int32Array.of(...offsets, ...index).buffer));
    return encodeCall(
      "groupedMatmul",
      {
        ...{ x: f32(x), w: f32(x, 16), y: f32(x, 32) },
        offsets: { handle: ints, offset: 0, dtype: "i32" },
        rowIndex: { handle: ints, offset: offsets.length, dtype: "i32" },
      },
      { experts: 2, rows: 3, xRows: 4, outDim: 2, inDim: 2, transW: 0, accumulate: 0, compute: 0 },
    );
  };
  backend.run(grouped([0, 1, 3], [0, 3, 1]));
  expect(() => backend.run(grouped([0, 1, 4], [0, 3, 1]))).toThrow(/offsets must rise within 0 to 3/);
  expect(() => backend.run(grouped([0, 2, 1], [0, 3, 1]))).toThrow(/offsets must rise/);
  expect(() => backend.run(grouped([0, 1, 3], [0, 4, 1]))).toThrow(/row_index must be within 0 to 4/);
  backend.free(x);
  backend.free(ints);
});

test("a mapped file is read where it lies and cannot be written", () => {
  withFile(
    Uint8Array.from({ length: 5000 }, (_, i) => i % 251),
    (path) => {
      const handle = backend.mapFile(path, 4100, 900);
      expect(backend.readSync(handle, 0, 3)).toEqual(Uint8Array.of(4100 % 251, 4101 % 251, 4102 % 251));
      expect(() => backend.readSync(handle, 899, 2)).toThrow(InternalError);
      expect(() => backend.write(handle, 0, Uint8Array.of(1))).toThrow(/mapped file/);
      const fill = encodeCall("fill", { y: f32(handle) }, { n: 4, value: 0 });
      expect(() => backend.run(fill)).toThrow(/mapped file/);
      backend.free(handle);
      const tooLong = (): number => backend.mapFile(path, 4100, 901);
      expect(tooLong).toThrow(FormatError);
      expect(tooLong).toThrow(`${path} at byte 4100: must hold 901 bytes`);
      expect(() => backend.mapFile(`${path}.missing`, 0, 1)).toThrow(IoError);
    },
  );
});

test("a file has more windows than the system allows mappings, and none counts as memory", () => {
  withFile(
    Uint8Array.from({ length: 66_000 }, (_, i) => i % 251),
    (path) => {
      const before = backend.stats();
      const windows = Array.from({ length: 66_000 }, (_, i) => backend.mapFile(path, i, 1));
      expect(backend.stats()).toMatchObject({ liveBytes: before.liveBytes, peakBytes: before.peakBytes });
      expect(backend.readSync(windows.at(-1)!, 0, 1)).toEqual(Uint8Array.of(65_999 % 251));
      for (const handle of windows) backend.free(handle);
      expect(backend.stats().liveBuffers).toBe(before.liveBuffers);
    },
  );
});

test("a file that was written again is mapped anew, and the old window keeps what it had", () => {
  withFile(Uint8Array.of(1, 2, 3), (path) => {
    const old = backend.mapFile(path, 0, 3);
    writeFileSync(`${path}.new`, Uint8Array.of(4, 5, 6, 7));
    renameSync(`${path}.new`, path);
    const fresh = backend.mapFile(path, 0, 4);
    expect(backend.readSync(old, 0, 3)).toEqual(Uint8Array.of(1, 2, 3));
    expect(backend.readSync(fresh, 0, 4)).toEqual(Uint8Array.of(4, 5, 6, 7));
    backend.free(old);
    backend.free(fresh);
  });
});

test("a window that starts between two elements is refused for wide types and read for blocks", () => {
  withFile(new Uint8Array(200), (path) => {
    const handle = backend.mapFile(path, 1, 150);
    const [ids, y] = [backend.alloc(4), backend.alloc(4 * 256)];
    backend.write(ids, 0, new Uint8Array(4));
    const look = (dtype: Operand["dtype"], d: number): Float64Array =>
      encodeCall(
        "embedding",
        { ids: { handle: ids, offset: 0, dtype: "i32" }, table: { handle, offset: 0, dtype }, y: f32(y) },
        { n: 1, d, vocab: 1 },
      );
    backend.run(look("q4_k", 256));
    backend.run(look("q8_0", 128));
    for (const dtype of ["f32", "bf16", "f16"] as const) {
      expect(() => backend.run(look(dtype, 8))).toThrow(/table must be aligned to \d bytes/);
    }
    for (const used of [handle, ids, y]) backend.free(used);
  });
});

test("a window of more than 64 MiB is refused", () => {
  const handle = backend.alloc((64 << 20) + 1);
  expect(() => backend.readSync(handle, 0, (64 << 20) + 1)).toThrow(/at most 67108864 bytes/);
  backend.free(handle);
});
