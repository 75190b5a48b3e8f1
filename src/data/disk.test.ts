import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, expect, test } from "vitest";
import { ConfigError } from "../core/errors.ts";
import { asIoError, createWhole } from "./disk.ts";

const root = fs.mkdtempSync(path.join(os.tmpdir(), "fathom-disk-"));
afterAll(() => fs.rmSync(root, { recursive: true }));

async function writeFolder(folder: string, text: string): Promise<string> {
  fs.writeFileSync(path.join(folder, "file"), text);
  return folder;
}

test("a folder appears whole, and a second one under its name leaves the first", async () => {
  const target = path.join(root, "whole", "target");
  await createWhole(target, (folder) => writeFolder(folder, "first"));
  await createWhole(target, (folder) => writeFolder(folder, "second"));
  expect(fs.readFileSync(path.join(target, "file"), "utf8")).toBe("first");
  expect(fs.readdirSync(path.dirname(target))).toEqual(["target"]);
});

test("a failure in the middle leaves nothing, and keeps an error of the family as it is", async () => {
  const target = path.join(root, "failed", "target");
  const thrown = new ConfigError("data", "must be better");
  const write = async (folder: string): Promise<string> => {
    await writeFolder(folder, "half");
    throw thrown;
  };
  await expect(createWhole(target, write)).rejects.toBe(thrown);
  expect(fs.readdirSync(path.dirname(target))).toEqual([]);
});

test("a full disk is an IoError with its cure", () => {
  const full = Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
  expect(asIoError("/cache/x", "must be writable", full).message).toMatchInlineSnapshot(
    `"/cache/x: must be writable, got "ENOSPC"; free some disk space and run again"`,
  );
});
