import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, expect, test } from "vitest";
import { ConfigError } from "../core/errors.ts";
import { createWhole } from "./disk.ts";
import { ownerName, parseOwner } from "./owner.ts";

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

test("what a killed process left unfinished goes at the next call, and work in progress stays", async () => {
  const target = path.join(root, "killed", "target");
  const { pid } = spawnSync(process.execPath, ["-e", ""]);
  const { start, host } = parseOwner(ownerName())!;
  const unfinished = (owner: string): string => path.join(path.dirname(target), `.tmp-${owner}.AbCdEf`);
  const [gone, own] = [unfinished(`${pid}.${start}.${host}`), unfinished(ownerName())];
  for (const folder of [gone, own]) {
    fs.mkdirSync(folder, { recursive: true });
    await writeFolder(folder, "half");
  }
  await createWhole(target, (folder) => writeFolder(folder, "whole"));
  expect(fs.readdirSync(path.dirname(target))).toEqual([path.basename(own), "target"]);
});
