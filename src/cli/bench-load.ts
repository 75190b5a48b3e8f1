/** `fathom bench load`: how long a model of a given size takes from the disk to its first token, and what stays in memory. */

import { execFile } from "node:child_process";
import { mkdtemp, open, stat, statfs } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Command } from "commander";
import { ConfigError, IoError } from "../core/errors.ts";
import { nodeFiles } from "../formats/node.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import { loadTokenizer, trainTokenizer } from "../tokenizer/node.ts";
import type { LoadRun, ModelRun } from "./load-run.ts";
import { parseBytes } from "./plan-local.ts";
import { print, printJson, size as sizeText, snake } from "./output.ts";
import { leastModelBytes, writeRandomModel, type RandomModel } from "./random-model.ts";

interface BenchLoadOptions {
  readonly size?: number;
  readonly folder?: string;
  readonly tokenizer?: string;
  readonly json?: boolean;
}

/** Seconds and bytes of one model. */
interface LoadFigures {
  readonly format: string;
  readonly type: string;
  readonly fileBytes: number;
  /** Medians of the runs. */
  readonly median: RunFigures;
  /** The least of each figure. */
  readonly least: RunFigures;
  /** The tokenizer alone in a process; null where the system does not tell. */
  readonly tokenizerBytes: number | null;
  /** Without the KV cache. */
  readonly anonymousBytes: number | null;
  readonly cacheBytes: number;
}

/** Seconds of one run, cold and warm. */
interface RunFigures {
  /** Reading the file once from its beginning, after it was dropped from the cache. */
  readonly readColdS: number;
  /** From the start of the process to the first token, after the same. */
  readonly firstTokenColdS: number;
  readonly firstTokenWarmS: number;
  /** From our own code's first line until the model is ready. */
  readonly loadWarmS: number;
  /** Of it, what the tokenizer takes. */
  readonly tokenizerS: number;
}

const RUNS = 3;
const FORMATS = ["gguf", "safetensors"] as const;

const GIB = 2 ** 30;

export function benchLoadCommand(): Command {
  return new Command("load")
    .description("time from disk to first token, and memory, of random models in GGUF and safetensors")
    .option("--size <size>", "of each file (default: 2GiB)", (text) => parseBytes("--size", text))
    .option("--folder <path>", "where the files are written, and removed at the end (default: the system's)")
    .option("--tokenizer <path>", "the tokenizer of a model folder (default: one of single bytes)")
    .option("--json", "one JSON object on stdout")
    .action(benchLoad);
}

async function benchLoad(options: BenchLoadOptions): Promise<void> {
  const { size = 2 * GIB, folder = tmpdir(), tokenizer: path, json = false } = options;
  const tokenizer = path === undefined ? await trainTokenizer([], { vocabSize: 259 }) : await loadTokenizer(path);
  await checkRoom(folder, size, tokenizer.vocabSize);
  const loadAverage = loadavg()[0]!;
  const models: LoadFigures[] = [];
  for (const format of FORMATS) models.push(await measure(folder, format, size, tokenizer));
  const machine = { cpu: cpus()[0]?.model ?? "", cores: availableParallelism(), loadAverage };
  const vocabulary = tokenizer.vocabSize;
  if (json) return printJson(snake({ date: new Date().toISOString(), machine, vocabulary, runs: RUNS, models }));
  print(`${machine.cpu}, ${machine.cores} cores, load average ${loadAverage.toFixed(2)} before`);
  print(`medians of ${RUNS} runs, the least in brackets`);
  for (const figures of models) show(figures);
}

/** Before anything is written. */
async function checkRoom(folder: string, size: number, vocabSize: number): Promise<void> {
  const found = await stat(folder).catch(() => undefined);
  if (found?.isDirectory() !== true) {
    throw new IoError(folder, "must be a folder that exists", { cure: "make it, or give another --folder" });
  }
  const least = Math.max(...FORMATS.map((format) => leastModelBytes(format, vocabSize)));
  if (size < least) throw new ConfigError("--size", `must be at least ${sizeText(least)}, a model of one layer`, size);
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (size <= free) return;
  throw new ConfigError(
    "--size",
    `must be at most the ${sizeText(free)} free in ${folder}`,
    size,
    "or give a --folder",
  );
}

async function measure(
  parent: string,
  format: RandomModel["format"],
  size: number,
  tokenizer: Tokenizer,
): Promise<LoadFigures> {
  const folder = await mkdtemp(join(parent, "fathom-load-"));
  try {
    return await measureModel(await writeRandomModel(folder, format, size, tokenizer));
  } finally {
    await nodeFiles.remove(folder);
  }
}

async function measureModel({ format, type, path, file }: RandomModel): Promise<LoadFigures> {
  const { size: fileBytes } = await stat(file);
  const runs: RunFigures[] = [];
  let last: ModelRun | undefined;
  for (let run = 0; run < RUNS; run++) {
    const { warm, ...figures } = await measureRun(path, file);
    runs.push(figures);
    last = warm;
  }
  const { anonymousBytes, cacheBytes } = last!;
  const tokenizer = await start<LoadRun>(path, "--tokenizer-only");
  return {
    ...{ format, type, fileBytes, cacheBytes },
    median: ofRuns(runs, (sorted) => sorted[Math.floor(RUNS / 2)]!),
    least: ofRuns(runs, (sorted) => sorted[0]!),
    tokenizerBytes: tokenizer.anonymousBytes,
    anonymousBytes: anonymousBytes === null ? null : anonymousBytes - cacheBytes,
  };
}

async function measureRun(path: string, file: string): Promise<RunFigures & { warm: ModelRun }> {
  await dropFromCache(file);
  const readColdS = await readOnce(file);
  await dropFromCache(file);
  const cold = await start<ModelRun>(path);
  const warm = await start<ModelRun>(path);
  return {
    ...{ readColdS, warm },
    firstTokenColdS: cold.firstTokenMs / 1000,
    firstTokenWarmS: warm.firstTokenMs / 1000,
    loadWarmS: (warm.loadedMs - warm.startMs) / 1000,
    tokenizerS: warm.tokenizerMs / 1000,
  };
}

function ofRuns(runs: readonly RunFigures[], choose: (sorted: readonly number[]) => number): RunFigures {
  const of = (name: keyof RunFigures): number => choose(runs.map((run) => run[name]).toSorted((a, b) => a - b));
  return {
    readColdS: of("readColdS"),
    firstTokenColdS: of("firstTokenColdS"),
    firstTokenWarmS: of("firstTokenWarmS"),
    loadWarmS: of("loadWarmS"),
    tokenizerS: of("tokenizerS"),
  };
}

const run = promisify(execFile);

/** Node has no posix_fadvise; `dd` of GNU coreutils gives the advice DONTNEED for a whole file in this way. */
async function dropFromCache(file: string): Promise<void> {
  try {
    await run("dd", [`of=${file}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"]);
  } catch (cause) {
    throw new IoError(file, "must leave the system's cache", { cure: "install dd of GNU coreutils", cause });
  }
}

const READ_BYTES = 4 * 2 ** 20;

async function readOnce(path: string): Promise<number> {
  const start = performance.now();
  const file = await open(path, "r");
  try {
    const buffer = Buffer.alloc(READ_BYTES);
    while ((await file.read(buffer, 0, READ_BYTES)).bytesRead > 0);
  } finally {
    await file.close();
  }
  return (performance.now() - start) / 1000;
}

/** Another process of this program. */
async function start<T>(path: string, ...flags: string[]): Promise<T> {
  const words = [...process.execArgv, process.argv[1]!, "bench", "load-run", path, ...flags];
  const { stdout } = await run(process.execPath, words);
  return JSON.parse(stdout) as T;
}

function show(figures: LoadFigures): void {
  const { format, type, fileBytes, median, least } = figures;
  const seconds = (name: keyof RunFigures): string => `${median[name].toFixed(2)} s (${least[name].toFixed(2)})`;
  const mib = (bytes: number | null): string => (bytes === null ? "not known" : `${(bytes / 2 ** 20).toFixed(0)} MiB`);
  const times = (median.firstTokenColdS / median.readColdS).toFixed(2);
  print(`${format} ${type}, ${(fileBytes / GIB).toFixed(2)} GiB`);
  const rows: [string, string][] = [
    ["reading the file once, cold", seconds("readColdS")],
    ["first token, cold", `${seconds("firstTokenColdS")}, ${times} times reading`],
    ["first token, warm", seconds("firstTokenWarmS")],
    ["loading, warm", `${seconds("loadWarmS")}, ${seconds("tokenizerS")} of it the tokenizer`],
    ["anonymous memory without the cache", mib(figures.anonymousBytes)],
    ["the same with the tokenizer alone", mib(figures.tokenizerBytes)],
    ["KV cache", mib(figures.cacheBytes)],
  ];
  for (const [name, value] of rows) print(`  ${name.padEnd(36)} ${value}`);
}
