import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { diesAfter, fullAfter } from "../../test/helpers/failing-files.ts";
import { nodeFiles } from "../formats/node.ts";
import { writeLaunchFolder } from "./launch-folder.ts";

let folder: string;
let out: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "fathom-folder-"));
  out = join(folder, "launch");
});

afterEach(() => rmSync(folder, { recursive: true }));

const filesOf = (text: string): { path: string; text: string }[] => [
  { path: "launch.sh", text: `echo ${text}\n` },
  { path: "config.json", text: `"${text}"\n` },
];

const script = (): string => readFileSync(join(out, "launch.sh"), "utf8");

test("an empty folder is filled", async () => {
  mkdirSync(out);
  await writeLaunchFolder(nodeFiles, out, filesOf("first"));
  expect(readdirSync(out)).toEqual([".fathom-export.json", "config.json", "launch.sh"]);
});

test("a full disk leaves the earlier export and nothing beside it", async () => {
  await writeLaunchFolder(nodeFiles, out, filesOf("first"));
  await expect(writeLaunchFolder(fullAfter(nodeFiles, 20), out, filesOf("second"))).rejects.toThrow(/ENOSPC/);
  expect(script()).toBe("echo first\n");
  expect(readdirSync(folder)).toEqual(["launch"]);
});

test("a process that dies at any call leaves one of the two exports whole", async () => {
  await writeLaunchFolder(nodeFiles, out, filesOf("first"));
  const probe = diesAfter(nodeFiles, Infinity);
  await writeLaunchFolder(probe, out, filesOf("first"));
  for (let calls = 0; calls < probe.calls; calls++) {
    await writeLaunchFolder(diesAfter(nodeFiles, calls), out, filesOf("second")).catch(() => undefined);
    const whole = readdirSync(folder).filter((name) => readdirSync(join(folder, name)).includes(".fathom-export.json"));
    expect(whole.length, `after ${calls} calls`).toBeGreaterThan(0);
    rmSync(out, { recursive: true, force: true });
    await writeLaunchFolder(nodeFiles, out, filesOf("first"));
  }
});

test("a file under the folder's name is not replaced", async () => {
  await writeLaunchFolder(nodeFiles, out, filesOf("first"));
  await expect(writeLaunchFolder(nodeFiles, join(out, "launch.sh"), filesOf("second"))).rejects.toThrow(
    /launch\.sh: must be a folder or absent, got "a file"; choose another --out/,
  );
});
