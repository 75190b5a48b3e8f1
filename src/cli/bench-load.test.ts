/** `fathom bench load`: what it refuses before it writes. */

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { benchLoadCommand } from "./bench-load.ts";

const folder = mkdtempSync(join(tmpdir(), "fathom-bench-load-"));
afterAll(() => rmSync(folder, { recursive: true }));

function benchLoad(...words: string[]): Promise<unknown> {
  return benchLoadCommand().parseAsync(words, { from: "user" });
}

test("a folder that is not there, a size below one layer and one beyond the disk are refused before anything is written", async () => {
  await expect(benchLoad("--folder", join(folder, "nosuch"))).rejects.toThrow("nosuch: must be a folder that exists");
  await expect(benchLoad("--folder", folder, "--size", "1MB")).rejects.toThrow("--size: must be at least 135.3 MB");
  await expect(benchLoad("--folder", folder, "--size", "900000TB")).rejects.toThrow("--size: must be at most the");
  expect(readdirSync(folder)).toEqual([]);
});
