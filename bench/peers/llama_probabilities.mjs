/**
 * The whole distribution that llama.cpp gives after every token of a sequence, through node-llama-cpp:
 * `node llama_probabilities.mjs FOLDER_OF_NODE_MODULES FILE TOKENS OUT`. A process of its own, since llama.cpp ends it where
 * a model is not to its liking. TOKENS is a JSON list of ids; OUT is written as f64 [tokens, vocabulary].
 */

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, file, list, out] = /** @type {[string, string, string, string]} */ (process.argv.slice(2));
const entry = createRequire(join(modules, "noop.js")).resolve("node-llama-cpp");
const { getLlama } = await import(pathToFileURL(entry).href);
/** @type {number[]} */
const tokens = JSON.parse(readFileSync(list, "utf8"));
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: 1 });
const model = await llama.loadModel({ modelPath: file, gpuLayers: 0, useMmap: false });
const context = await model.createContext({
  contextSize: tokens.length + 8,
  flashAttention: false,
  experimentalKvCacheKeyType: "F32",
  experimentalKvCacheValueType: "F32",
});
const options = { temperature: 1, topK: 0, topP: 1, minP: 0 };
const input = tokens.map((token) => [token, { generateNext: { probabilities: true, options } }]);
const output = await context.getSequence().controlledEvaluate(input);
const vocabulary = output[0].next.probabilities.size;
const rows = new Float64Array(tokens.length * vocabulary);
for (const [i, { next }] of output.entries()) {
  for (const [token, p] of next.probabilities) rows[i * vocabulary + token] = p;
}
writeFileSync(out, new Uint8Array(rows.buffer));
process.exit(0);
