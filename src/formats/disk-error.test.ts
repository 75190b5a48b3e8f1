import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, expect, test } from "vitest";
import { ConfigError, IoError } from "../core/errors.ts";
import { diskError, nodeFiles } from "./node.ts";

const root = fs.mkdtempSync(path.join(os.tmpdir(), "fathom-disk-"));
afterAll(() => fs.rmSync(root, { recursive: true }));

test("a full disk is an IoError with its cure, and an error of the family stays as it is", () => {
  const full = Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
  expect(diskError("/cache/x", "must be writable", full).message).toMatchInlineSnapshot(
    `"/cache/x: must be writable, got "ENOSPC"; free some disk space"`,
  );
  const own = new ConfigError("data", "must be better");
  expect(diskError("/cache/x", "must be writable", own)).toBe(own);
});

test("a folder is made with its parents, by several at once, and may be there already", async () => {
  const folder = path.join(root, "a", "b", "c");
  await Promise.all([1, 2, 3].map(() => nodeFiles.makeFolder(folder)));
  await nodeFiles.makeFolder(folder);
  expect(fs.statSync(folder).isDirectory()).toBe(true);
});

test("a folder that can not be is an IoError that comes at once, also where the system denies that its parent exists", async () => {
  fs.writeFileSync(path.join(root, "file"), "");
  await expect(nodeFiles.makeFolder(path.join(root, "file"))).rejects.toThrow("must be a writable folder");
  await expect(nodeFiles.makeFolder(path.join(root, "file", "below"))).rejects.toThrow("ENOTDIR");
  await expect(nodeFiles.makeFolder("/proc/fathom/cache")).rejects.toThrow(IoError);
});
