/**
 * Whether the whole vocabularies of DeepSeek LLM and Coder give the ids of Hugging Face `tokenizers` and of llama.cpp on
 * 2 MB of mixed text:
 *
 *     npx tsx bench/tokenizer/vocabularies.bench.ts --source LLAMA_CPP --modules FOLDER
 *
 * LLAMA_CPP is llama.cpp's source, with `models/ggml-vocab-deepseek-{llm,coder}.gguf` and the texts and ids beside them;
 * FOLDER has node_modules with node-llama-cpp. `tokenizers` gets the vocabulary as tokenizer.json, llama.cpp reads the file
 * itself. Ends with an error when `tokenizers` or the texts of llama.cpp differ; appends a line to
 * bench/results/vocabularies.jsonl.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { Tokenizer as HuggingFaceTokenizer } from "tokenizers";
import { parseTokenizer } from "../../src/tokenizer/index.ts";
import { loadTokenizer } from "../../src/tokenizer/node.ts";
import { mixedTexts } from "../../test/helpers/mixed-texts.ts";
import { appendResult } from "../result-file.ts";

const BYTES = 2_100_000;

const { values: flags } = parseArgs({ options: { source: { type: "string" }, modules: { type: "string" } } });

interface LlamaModel {
  tokenize(text: string, specialTokens: boolean): number[];
  dispose(): Promise<void>;
}

type OpenVocabulary = (file: string) => Promise<LlamaModel>;

async function openLlama(folder: string): Promise<OpenVocabulary> {
  const entry = createRequire(resolve(folder, "noop.js")).resolve("node-llama-cpp");
  const { getLlama } = (await import(pathToFileURL(entry).href)) as {
    getLlama: (options: object) => Promise<{ loadModel(options: object): Promise<LlamaModel> }>;
  };
  const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: 1 });
  return (file) => llama.loadModel({ modelPath: file, gpuLayers: 0, vocabOnly: true });
}

/** The texts that llama.cpp tests itself with, and their ids. */
function ownCases(file: string): { readonly text: string; readonly ids: string }[] {
  const texts = readFileSync(`${file}.inp`, "utf8").split("\n__ggml_vocab_test__\n");
  const ids = readFileSync(`${file}.out`, "utf8").split("\n");
  return texts.map((text, i) => ({ text, ids: ids[i]!.trim() }));
}

async function compare(name: string, source: string, open: OpenVocabulary) {
  const file = join(resolve(source), `models/ggml-vocab-${name}.gguf`);
  const native = await loadTokenizer(file);
  const plain = parseTokenizer(JSON.parse(native.toJson()), JSON.parse(native.toConfigJson()));
  const reference = HuggingFaceTokenizer.fromString(native.toJson());
  const llama = await open(file);
  const counts = { texts: 0, bytes: 0, native: 0, plain: 0, llama_cpp: 0, decoded: 0 };
  for (const text of mixedTexts(BYTES)) {
    const expected = (await reference.encode(text, null, { addSpecialTokens: false })).getIds().join(" ");
    const ids = native.encode(text);
    counts.texts++;
    counts.bytes += Buffer.byteLength(text);
    if (ids.join(" ") === expected) counts.native++;
    if (plain.encode(text).join(" ") === expected) counts.plain++;
    if (llama.tokenize(text, true).join(" ") === expected) counts.llama_cpp++;
    if (native.decode(ids) === text) counts.decoded++;
  }
  await llama.dispose();
  const cases = ownCases(file);
  const agreed = cases.filter(({ text, ids }) => native.encode(text).join(" ") === ids).length;
  return { vocabulary: name, ids: native.vocabSize, ...counts, llama_cpp_cases: [agreed, cases.length] };
}

if (flags.source === undefined || flags.modules === undefined) throw new Error("--source and --modules are needed");
const open = await openLlama(flags.modules);
for (const name of ["deepseek-llm", "deepseek-coder"]) {
  const row = await compare(name, flags.source, open);
  console.log(JSON.stringify(row));
  const [agreed, cases] = row.llama_cpp_cases;
  const all = [row.native, row.plain, row.decoded].every((count) => count === row.texts) && agreed === cases;
  if (!all) throw new Error(`${name}: ids differ`);
  appendResult("vocabularies", row);
}
process.exit(0);
