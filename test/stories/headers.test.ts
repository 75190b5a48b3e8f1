/** The headers of the largest checkpoint, read by a program of its own: in little memory and not much slower than JSON. */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { root } from "../helpers/cli.ts";
import { parseAll } from "../helpers/parse-headers.ts";
import { ggufKeys } from "../helpers/gguf-keys.ts";
import { writeSparseFolder, writeSparseGguf } from "../helpers/sparse-checkpoint.ts";

const MAX_RSS_BYTES = 100 * 2 ** 20;
/** Of the time that Node takes to parse the same index and headers as JSON, checking nothing. */
const MAX_CPU_RATIO = 4;

interface Usage {
  readonly total: number;
  readonly tensors: number;
  readonly rssBytes: number;
  readonly cpuMs: number;
}

const PROBE = `
import { countHeaders, countParameters } from ${JSON.stringify(join(root, "src/blueprint/index.ts"))};
import { openModel } from ${JSON.stringify(join(root, "src/blueprint/node.ts"))};
import { parseAll } from ${JSON.stringify(join(root, "test/helpers/parse-headers.ts"))};
const [, , what, path] = process.argv;
let counts = {};
if (what === "parse") counts = { tensors: parseAll(path) };
if (what === "open") {
  const { blueprint, source } = await openModel(path);
  const format = source.kind === "gguf" ? "gguf" : "safetensors";
  counts = { ...countHeaders(blueprint, source.tensors, format), total: countParameters(blueprint).total };
}
const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
console.log(JSON.stringify({ ...counts, rssBytes: maxRSS * 1024, cpuMs: (userCPUTime + systemCPUTime) / 1000 }));
`;

let folder: string;
let probe: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "fathom-headers-"));
  probe = join(folder, "probe.mjs");
  const stdin = { contents: PROBE, resolveDir: root, loader: "ts" as const };
  await build({ stdin, bundle: true, platform: "node", format: "esm", outfile: probe, logLevel: "error" });
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

function use(...args: string[]): Usage {
  return JSON.parse(execFileSync(process.execPath, [probe, ...args], { encoding: "utf8" })) as Usage;
}

const rssOverEmpty = (usage: Usage): number => usage.rssBytes - use("nothing").rssBytes;

describe("V3 in its true size, without data", () => {
  test("as 163 shards with 91,991 tensors and an index", () => {
    const at = join(folder, "v3");
    mkdirSync(at);
    expect(writeSparseFolder("deepseek-v3", at, 163)).toBe(91_991);
    const usage = use("open", at);
    expect([usage.total, usage.tensors]).toEqual([671_026_419_200, 91_991]);
    expect(rssOverEmpty(usage)).toBeLessThan(MAX_RSS_BYTES);
    const parsed = use("parse", at);
    expect(parsed.tensors).toBe(parseAll(at));
    expect(usage.cpuMs / parsed.cpuMs).toBeLessThan(MAX_CPU_RATIO);
  });

  test("as GGUF with its full vocabulary", () => {
    const file = join(folder, "v3.gguf");
    const keys = ggufKeys("deepseek-v3", "deepseek2");
    writeSparseGguf(file, { preset: "deepseek-v3", arch: "deepseek2", keys, tokens: 129_280 });
    const usage = use("open", file);
    expect(usage.total).toBe(671_026_419_200);
    expect(rssOverEmpty(usage)).toBeLessThan(MAX_RSS_BYTES / 2);
  });

  test("a folder with pickles alone is refused without reading them", () => {
    const at = join(folder, "pickled");
    mkdirSync(at);
    writeSparseFolder("tiny", at, 1);
    rmSync(join(at, "model-00001-of-00001.safetensors"));
    rmSync(join(at, "model.safetensors.index.json"));
    writeFileSync(join(at, "pytorch_model.bin"), "");
    expect(() => execFileSync(process.execPath, [probe, "open", at], { stdio: "pipe" })).toThrow(
      /must not be a pickle, which can run any code when it is loaded/,
    );
  });
});
