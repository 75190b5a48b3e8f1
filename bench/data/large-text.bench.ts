/**
 * Time and memory of a text far larger than its share of memory: a file is generated, then tokenizer and token files are
 * made of it in a process of their own, as `fathom train --data FILE` does first.
 *
 *     npm run build && npx tsx bench/data/large-text.bench.ts [lines|one-line|jsonl|unbroken] [--mb 1050] [--folder FOLDER]
 *
 * Of a hundred words of `lines`, `one-line` (no newline at all) and `jsonl` 99 come from 50,000 by Zipf's law, one from two
 * million; `unbroken` is random letters and digits without a space. Needs twice the size on the disk of FOLDER, which is left as it
 * was. Appends one JSON line to bench/results/large-text.jsonl.
 */

import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { appendResult } from "../result-file.ts";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { mb: { type: "string", default: "1050" }, folder: { type: "string", default: tmpdir() } },
});
const ROOT = join(import.meta.dirname, "../..");
const VOCAB_SIZE = 8192;
const BLOCK_BYTES = 1 << 20;
const NUM_WORDS = 2_000_000;
const COMMON_WORDS = 50_000;
const RARE = 0.01;
const MOST_LETTERS = 12;
const ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

let state = 1;
/** In [0, 1). */
function random(): number {
  state = (state * 48_271) % 2_147_483_647;
  return state / 2_147_483_647;
}

/** Prepares the text and prints what it took. */
const CHILD = `
import { openFiles } from "${join(ROOT, "dist/data/node.js")}";
import { prepareText } from "${join(ROOT, "dist/train/node.js")}";
const [file, cacheDir] = process.argv.slice(1);
const start = performance.now();
const source = await openFiles([file], "/");
const reached = () => ({ seconds: (performance.now() - start) / 1000, peakRssBytes: 1024 * process.resourceUsage().maxRSS });
let tokenizer;
const onProgress = () => (tokenizer ??= reached());
const { dataset } = await prepareText({ source, vocabSize: ${VOCAB_SIZE}, valFraction: 0.05, cacheDir, onProgress });
const { train, validation } = dataset;
const tokens = train.length + validation.length;
const documents = train.documents + validation.documents;
console.log(JSON.stringify({ ...reached(), tokenizer, tokens, documents }));
dataset[Symbol.dispose]();
`;

/** The spellings of all words, each in its row with its length in front: few letters for frequent words. */
function spellWords(): Uint8Array {
  const rows = new Uint8Array(NUM_WORDS * (MOST_LETTERS + 1));
  for (let word = 0; word < NUM_WORDS; word++) {
    const at = word * (MOST_LETTERS + 1);
    const letters = Math.min(MOST_LETTERS, 1 + Math.floor(Math.log2(word + 2) / 3 + 4 * random()));
    rows[at] = letters;
    for (let i = 1; i <= letters; i++) rows[at + i] = 97 + Math.floor(26 * random() ** 2);
  }
  return rows;
}

function pickWord(): number {
  return random() < RARE ? Math.floor(NUM_WORDS * random()) : Math.floor(COMMON_WORDS ** random()) - 1;
}

/** Fills a block with words, `between` standing after each. */
function fillWords(block: Buffer, words: Uint8Array, between: (word: number) => number): void {
  let word = 0;
  for (let at = 0; at < block.length;) {
    const row = pickWord() * (MOST_LETTERS + 1);
    const end = row + words[row]!;
    for (let from = row + 1; from <= end && at < block.length; from++) block[at++] = words[from]!;
    if (at < block.length) block[at++] = between(word++);
  }
}

const [SPACE, NEWLINE] = [0x20, 0x0a];
const DOCUMENTS_PER_BLOCK = 256;

/** What the next megabyte of a kind of text is; the same buffer each time. */
function writerOf(kind: string): () => Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  if (kind === "unbroken") {
    return () => {
      for (let i = 0; i < block.length; i++) block[i] = ALPHANUMERIC.charCodeAt(62 * random());
      return block;
    };
  }
  const words = spellWords();
  const fill = (between: (word: number) => number): Buffer => {
    fillWords(block, words, between);
    return block;
  };
  if (kind === "lines") return () => fill((word) => (word % 12 === 11 ? NEWLINE : SPACE));
  if (kind === "one-line") return () => fill(() => SPACE);
  if (kind === "jsonl") return () => jsonLines(fill(() => SPACE).toString("latin1"));
  throw new Error(`the kind must be lines, one-line, jsonl or unbroken, got ${kind}`);
}

function jsonLines(text: string): Buffer {
  const length = text.length / DOCUMENTS_PER_BLOCK;
  const documents = Array.from({ length: DOCUMENTS_PER_BLOCK }, (_, i) => text.slice(i * length, (i + 1) * length));
  return Buffer.from(documents.map((document) => `${JSON.stringify({ text: document })}\n`).join(""));
}

function generate(file: string, kind: string, bytes: number): void {
  const next = writerOf(kind);
  const fd = openSync(file, "w");
  for (let written = 0; written < bytes;) written += writeSync(fd, next());
  closeSync(fd);
}

const kind = positionals[0] ?? "lines";
const folder = mkdtempSync(join(flags.folder, "fathom-large-text-"));
try {
  const file = join(folder, kind === "jsonl" ? "text.jsonl" : "text.txt");
  generate(file, kind, 1e6 * Number(flags.mb));
  const fileBytes = statSync(file).size;
  const words = ["--input-type=module", "--eval", CHILD, file, join(folder, "cache")];
  const took = JSON.parse(execFileSync(process.execPath, words, { encoding: "utf8" })) as Record<string, number>;
  const line = { kind, fileBytes, vocabSize: VOCAB_SIZE, ...took, rssOverFile: took.peakRssBytes! / fileBytes };
  console.log(JSON.stringify(line));
  appendResult("large-text", line);
} finally {
  rmSync(folder, { recursive: true });
}
