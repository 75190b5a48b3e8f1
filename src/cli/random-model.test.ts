/** The models that `fathom bench load` writes, and one start of them. */

import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createByteTokenizer } from "../../test/helpers/byte-tokenizer.ts";
import { openModel } from "../blueprint/node.ts";
import { loadRunCommand } from "./load-run.ts";
import { writeRandomModel } from "./random-model.ts";

const BYTES = 80 * 2 ** 20;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-random-"));
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

test.each(["gguf", "safetensors"] as const)("a random model in %s has its size, and starts", async (format) => {
  const bytes = format === "gguf" ? BYTES : 2 * BYTES;
  const { path, file } = await writeRandomModel(folder, format, bytes, createByteTokenizer());
  const { size } = await stat(file);
  expect(Math.abs(size / bytes - 1)).toBeLessThan(0.2);
  const { model, source } = await openModel(path);
  expect(source.kind).toBe(format === "gguf" ? "gguf" : "folder");
  expect(model.tieEmbeddings).toBe(true);
  const print = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  await loadRunCommand().parseAsync([path], { from: "user" });
  const run = JSON.parse(String(print.mock.lastCall?.[0])) as Record<string, number>;
  expect(run.loadedMs).toBeGreaterThan(run.startMs!);
  expect(run.firstTokenMs).toBeGreaterThan(run.loadedMs!);
  // One block of 64 keys and values of one layer.
  expect(run.cacheBytes).toBe(2 * 64 * model.dim * 4);
});
