/**
 * The memory of a conversion: a folder with one stacked expert tensor of 2 GB and more, converted to an f16 folder and to a bf16 GGUF file,
 * with the largest RssAnon of the process on the way:
 *
 *     npm run build && npx tsx bench/convert/memory.bench.ts [FOLDER]
 *
 * Needs 10 GB on the disk of FOLDER, Linux, and about a minute.
 */

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { blueprint, fusedExperts, releasedTensors } from "../../src/blueprint/index.ts";
import { hfConfigText, resolveConfig } from "../../src/config/index.ts";
import { tensorBytes, writeSafetensors, type SafetensorsDType } from "../../src/formats/index.ts";
import { nodeFiles } from "../../src/formats/node.ts";
import { saveTokenizer } from "../../src/tokenizer/node.ts";
import { createByteTokenizer } from "../../test/helpers/byte-tokenizer.ts";
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

/** Runs the command line; the largest RssAnon of `/proc/PID/status` in bytes. */
async function convert(source: string, target: string, dtype: string): Promise<{ largest: number; seconds: number }> {
  const args = ["convert", source, target, "--dtype", dtype, "--json"];
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

const folder = mkdtempSync(join(process.argv[2] ?? tmpdir(), "fathom-convert-"));
try {
  const source = join(folder, "source");
  await nodeFiles.makeFolder(source);
  const tensor = await writeSource(source);
  const sourceBytes = statSync(join(source, "model.safetensors")).size;
  const targets = [
    ["folder", "f16"],
    ["file.gguf", "bf16"],
  ] as const;
  for (const [target, dtype] of targets) {
    const { largest, seconds } = await convert(source, join(folder, target), dtype);
    const sizes = { source_bytes: sourceBytes, largest_tensor_bytes: tensor };
    const figures = { rss_anon_mib: Math.round(largest / 2 ** 20), seconds: Math.round(seconds) };
    console.log(JSON.stringify({ target, dtype, ...sizes, ...figures }));
    appendResult("convert-memory", { target, dtype, ...sizes, ...figures });
    rmSync(join(folder, target), { recursive: true });
  }
} finally {
  rmSync(folder, { recursive: true });
}
