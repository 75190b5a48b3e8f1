/**
 * What `fathom convert` writes, read by others: GGUF by llama.cpp and by the gguf package, folders by transformers:
 *
 *     npm run build
 *     npx tsx bench/convert/readers.bench.ts --modules DIR --python VENV/bin/python
 *
 * DIR holds node_modules with node-llama-cpp. Prints a line for each file and folder.
 */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeRandomSources } from "./random-sources.ts";

/** All types of the first model, two of each other. */
const TYPES = ["f32", "q8_0", "f16", "bf16", "q6_k", "q5_0", "q4_k", "q4_0"];

interface Loaded {
  readonly architecture: string;
  readonly vocabulary: number;
  readonly entropies: readonly number[];
}

const root = join(import.meta.dirname, "../..");
const { values } = parseArgs({ options: { modules: { type: "string" }, python: { type: "string" } } });
const { modules, python } = values;
if (modules === undefined || python === undefined) throw new Error("give --modules DIR and --python PYTHON");

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], timeout: 60_000 });
}

function convert(source: string, target: string, dtype: string, ...options: string[]): string {
  run(process.execPath, join(root, "dist/cli/main.js"), "convert", source, target, "--dtype", dtype, ...options);
  return target;
}

/** The folder with experts one by one and fused, and what comes back from its GGUF file. */
function readFolders(source: string, gguf: string, reader: string): void {
  const folders = [
    convert(source, `${source}-f32`, "f32"),
    convert(source, `${source}-fused`, "f32", "--fused-experts"),
    convert(gguf, `${source}-from-gguf`, "f32"),
  ];
  const lines = run(reader, join(root, "bench/peers/hf_load.py"), ...folders).split("\n");
  for (const line of lines) if (line.startsWith("{")) console.log(line);
}

/** The last line of what a process printed. */
function lastJson(text: string): unknown {
  return JSON.parse(text.trim().split("\n").at(-1)!);
}

const folder = mkdtempSync(join(tmpdir(), "fathom-readers-"));
try {
  for (const [i, name] of (await writeRandomSources(folder)).entries()) {
    const exact = join(folder, `${name}-f32.gguf`);
    for (const type of TYPES.slice(0, i === 0 ? TYPES.length : 2)) {
      const file = join(folder, `${name}-${type}.gguf`);
      convert(join(folder, name), file, type);
      const loaded = lastJson(run(process.execPath, join(root, "bench/peers/llama_load.mjs"), modules, file)) as Loaded;
      const read = lastJson(run(python, join(root, "bench/peers/gguf_read.py"), exact, file)) as object;
      const { architecture, vocabulary, entropies } = loaded;
      const entropy = entropies.map((value) => Number(value.toFixed(4)));
      console.log(JSON.stringify({ name, type, architecture, vocabulary, entropy, ...read }));
    }
    // transformers has no class for DeepSeekMoE.
    if (name !== "deepseek") readFolders(join(folder, name), exact, python);
  }
} finally {
  rmSync(folder, { recursive: true });
}
