import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { IoError } from "../core/errors.ts";
import { ownerName, parseOwner } from "../data/node.ts";
import { lockRun } from "./run-lock.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "fathom-lock-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const { start, host } = parseOwner(ownerName())!;

test("a run folder is held until it is released, then it is as it was", () => {
  {
    using _ = lockRun(folder);
    expect(readdirSync(folder)).toEqual([`lock.${ownerName()}`]);
    expect(() => lockRun(folder)).toThrow(IoError);
    expect(readdirSync(folder)).toHaveLength(1);
  }
  expect(readdirSync(folder)).toEqual([]);
});

test("a process that is alive keeps others out, and is named", () => {
  // The process that runs this test's worker lives as long as the test.
  writeFileSync(join(folder, `lock.${process.ppid}.0.${host}`), "");
  expect(() => lockRun(folder)).toThrow(
    `${folder}: must be trained by one process at a time, got "process ${process.ppid} on ${host}"; wait for that process`,
  );
  expect(readdirSync(folder)).toHaveLength(1);
});

test("a lock of another machine is believed, and the error says what to delete", () => {
  const name = `lock.1.0.${host}-other`;
  writeFileSync(join(folder, name), "");
  expect(() => lockRun(folder)).toThrow(`if it is gone for certain, delete ${join(folder, name)}`);
});

test("the lock of a killed process is taken over without a question", () => {
  const { pid } = spawnSync(process.execPath, ["-e", ""]);
  writeFileSync(join(folder, `lock.${pid}.${start}.${host}`), "");
  using _ = lockRun(folder);
  expect(readdirSync(folder)).toEqual([`lock.${ownerName()}`]);
});

test("other files whose names begin alike are left alone", () => {
  writeFileSync(join(folder, "lock.txt"), "mine");
  using _ = lockRun(folder);
  expect(readdirSync(folder)).toContain("lock.txt");
});
