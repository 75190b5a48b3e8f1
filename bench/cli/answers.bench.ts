/**
 * Wall time of the verbs that answer at once, as a user starts them: `node dist/cli/main.js`, beside an empty Node.
 *
 *     npm run build && npx tsx bench/cli/answers.bench.ts [--runs 7]
 *
 * Each command once to warm the caches, then in turns; medians. Also the headers of V3 in their true size, as 163 shards and
 * as GGUF, made without data. Appends one JSON line to bench/results/answers.jsonl.
 */

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { presetNames } from "../../src/config/index.ts";
import { ggufKeys } from "../../test/helpers/gguf-keys.ts";
import { writeSparseFolder, writeSparseGguf } from "../../test/helpers/sparse-checkpoint.ts";
import { median } from "../peer.ts";
import { appendResult } from "../result-file.ts";

const main = join(import.meta.dirname, "..", "..", "dist", "cli", "main.js");
const { values: flags } = parseArgs({ options: { runs: { type: "string", default: "7" } } });
const runs = Number(flags.runs);

const headers = mkdtempSync(join(tmpdir(), "fathom-answers-"));
const gguf = join(headers, "v3.gguf");
writeSparseFolder("deepseek-v3", headers, 163);
const keys = ggufKeys("deepseek-v3", "deepseek2");
writeSparseGguf(gguf, { preset: "deepseek-v3", arch: "deepseek2", keys, tokens: 129_280 });

const commands = new Map<string, readonly string[]>([
  ["node -e 0", ["-e", "0"]],
  ...presetNames().map((name) => [`params ${name}`, [main, "params", name]] as [string, string[]]),
  ["explain", [main, "explain"]],
  ["explain qk_rope_head_dim", [main, "explain", "qk_rope_head_dim"]],
  ["explain hidden_size --model deepseek-v4-pro", [main, "explain", "hidden_size", "--model", "deepseek-v4-pro"]],
  ["params, 163 shards", [main, "params", headers]],
  ["params, GGUF", [main, "params", gguf]],
]);

function run(args: readonly string[]): number {
  const start = performance.now();
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
  return performance.now() - start;
}

const times = new Map([...commands].map(([name, args]) => [name, (run(args), new Array<number>())]));
const load = loadavg()[0]!;
for (let i = 0; i < runs; i++) for (const [name, args] of commands) times.get(name)!.push(run(args));

rmSync(headers, { recursive: true });

const rows = [...times].map(([name, ms]) => ({
  name,
  median_ms: Math.round(median(ms)),
  min_ms: Math.round(Math.min(...ms)),
}));
for (const { name, median_ms, min_ms } of rows) console.log(`${name.padEnd(46)} ${median_ms} ms (least ${min_ms})`);
appendResult("answers", { runs, load, rows });
