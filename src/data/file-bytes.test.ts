import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { DisposedError, IoError } from "../core/errors.ts";
import { createNativeBackend } from "../kernels/node.ts";
import { openBytes } from "./file-bytes.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "fathom-bytes-"));
const file = path.join(folder, "numbers");
const content = Buffer.from(Uint8Array.from({ length: 10_000 }, (_, i) => (i * i) % 251));
fs.writeFileSync(file, content);
afterAll(() => fs.rmSync(folder, { recursive: true }));

const native = createNativeBackend({ threads: 1 });

describe.each([
  ["mapped", native],
  ["by position", null],
])("a file read %s", (_, how) => {
  test("gives the bytes of any range", () => {
    using bytes = openBytes(file, how);
    expect(bytes.length).toBe(10_000);
    for (const [from, count] of [
      [0, 0],
      [0, 64],
      [4095, 3],
      [9999, 1],
      [0, 10_000],
    ] as const) {
      expect(bytes.read(from, count).equals(content.subarray(from, from + count))).toBe(true);
    }
  });
  test("may be empty", () => {
    const empty = path.join(folder, "empty");
    fs.writeFileSync(empty, "");
    using bytes = openBytes(empty, how);
    expect(bytes.length).toBe(0);
    expect(bytes.read(0, 0)).toHaveLength(0);
  });
  test("is not read after its end", () => {
    const bytes = openBytes(file, how);
    bytes[Symbol.dispose]();
    bytes[Symbol.dispose]();
    expect(() => bytes.read(0, 1)).toThrow(DisposedError);
  });
  test("must be there", () => {
    expect(() => openBytes(path.join(folder, "absent"), how)).toThrow(IoError);
  });
});

test("where the library is built a file is mapped, which takes no memory, and let go at the end", () => {
  const { liveBuffers, liveBytes } = native.stats();
  const bytes = openBytes(file);
  expect(native.stats()).toMatchObject({ liveBuffers: liveBuffers + 1, liveBytes });
  bytes[Symbol.dispose]();
  expect(native.stats()).toMatchObject({ liveBuffers, liveBytes });
});
