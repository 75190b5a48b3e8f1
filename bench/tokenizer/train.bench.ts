/**
 * Training an 8k vocabulary and encoding with it, in MB/s of UTF-8, native and in plain TypeScript; then the linear
 * time check: ten times the text must take about ten times as long, whatever the text.
 *
 *     npx tsx bench/tokenizer/train.bench.ts [FILE_OR_FOLDER …] [--vocab 8192]
 *
 * FILE is a text or JSON lines, as `fathom train --data` takes them. Without one the text is generated (words of random
 * letters with Zipf frequencies). Appends one JSON line to bench/results/tokenizer-train.jsonl.
 */
import { loadavg } from "node:os";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { openFiles } from "../../src/data/node.ts";
import { parseTokenizer, type Tokenizer } from "../../src/tokenizer/index.ts";
import { trainTokenizer } from "../../src/tokenizer/node.ts";
import { appendResult } from "../result-file.ts";

const RUNS = 5;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { vocab: { type: "string", default: "8192" } },
});

async function readTexts(patterns: readonly string[]): Promise<string[]> {
  const texts: string[] = [];
  for await (const text of (await openFiles(patterns, process.cwd())).documents()) texts.push(text);
  return texts;
}

/** About 10 MB of words whose frequencies fall like 1 / rank, in 200 documents. */
function generateTexts(): string[] {
  let state = 1;
  const random = (): number => (state = (state * 16_807) % 2_147_483_647) / 2_147_483_647;
  const letter = (): string => String.fromCharCode(97 + Math.floor(26 * random() ** 2));
  const words = Array.from({ length: 50_000 }, () => Array.from({ length: 2 + 8 * random() }, letter).join(""));
  const pick = (): string => words[Math.floor(words.length ** random()) - 1] ?? words[0]!;
  return Array.from({ length: 200 }, () => Array.from({ length: 8000 }, pick).join(" "));
}

async function measureMs(work: () => unknown): Promise<number[]> {
  const times: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    const start = performance.now();
    await work();
    times.push(performance.now() - start);
  }
  return times.toSorted((a, b) => a - b);
}

const rates: Record<string, { best: number; median: number }> = {};

async function report(name: string, numBytes: number, work: () => unknown): Promise<void> {
  const times = await measureMs(work);
  const rate = (ms: number): number => numBytes / 1e3 / ms;
  const middle = times[Math.floor(RUNS / 2)]!;
  const [best, median] = [rate(times[0]!), rate(middle)];
  rates[name] = { best, median };
  const [first, second] = [best, median].map((value) => value.toFixed(1).padStart(7));
  console.log(`${name.padEnd(34)}${first} MB/s best${second} median   ${middle.toFixed(0)} ms`);
}

async function reportGrowth(name: string, unit: string, tokenizer: Tokenizer): Promise<void> {
  const [small, large] = [unit.repeat(100_000 / unit.length), unit.repeat(1_000_000 / unit.length)];
  const short = (await measureMs(() => tokenizer.encode(small)))[0]!;
  const long = (await measureMs(() => tokenizer.encode(large)))[0]!;
  console.log(
    `${name.padEnd(34)}${short.toFixed(1)} ms, ten times the text ${long.toFixed(1)} ms (x${(long / short).toFixed(1)})`,
  );
}

const texts = positionals.length === 0 ? generateTexts() : await readTexts(positionals);
const vocabSize = Number(values.vocab);
const numBytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
console.log(
  `${texts.length} documents, ${(numBytes / 1e6).toFixed(2)} MB, vocabulary ${vocabSize}, best and median of ${RUNS}`,
);

const native = await trainTokenizer(texts, { vocabSize });
const plain = parseTokenizer(JSON.parse(native.toJson()));
await report("train", numBytes, () => trainTokenizer(texts, { vocabSize }));
await report("encode, native, all cores", numBytes, () => native.encodeMany(texts));
await report("encode, native, one core", numBytes, () => texts.map((text) => native.encode(text)));
await report("encode, plain TypeScript", numBytes, () => plain.encodeMany(texts));
const encoded = native.encodeMany(texts);
await report("decode", numBytes, () => encoded.map((ids) => native.decode(ids)));
const numTokens = encoded.reduce((sum, ids) => sum + ids.length, 0);
console.log(`${(numBytes / numTokens).toFixed(3)} bytes per token`);
for (const [kind, tokenizer] of [
  ["native", native],
  ["plain", plain],
] as const) {
  await reportGrowth(`${kind}: one letter`, "a", tokenizer);
  await reportGrowth(`${kind}: spaces`, " ", tokenizer);
  await reportGrowth(`${kind}: emoji`, "😀", tokenizer);
  await reportGrowth(`${kind}: CJK`, "中", tokenizer);
  await reportGrowth(`${kind}: controls`, "\u0001", tokenizer);
}
appendResult("tokenizer-train", {
  text: positionals.length === 0 ? "generated" : positionals.map((path) => basename(path)).join(" "),
  documents: texts.length,
  numBytes,
  vocabSize,
  runs: RUNS,
  load: loadavg()[0],
  megabytesPerSec: rates,
  bytesPerToken: numBytes / numTokens,
});
