/**
 * The whole distribution that llama.cpp gives after every token of some sequences, through node-llama-cpp:
 * `node llama_probabilities.mjs FOLDER_OF_NODE_MODULES FILE SEQUENCES`. A process of its own, since llama.cpp ends it where
 * a model is not to its liking. SEQUENCES is a JSON file with a list of lists of ids. Writes f32 [tokens, vocabulary] of each
 * sequence to stdout, which holds nothing else.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, file, list] = /** @type {[string, string, string]} */ (process.argv.slice(2));
const entry = createRequire(join(modules, "noop.js")).resolve("node-llama-cpp");
const { getLlama } = await import(pathToFileURL(entry).href);
/** @type {number[][]} */
const sequences = JSON.parse(readFileSync(list, "utf8"));
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: 1 });
const model = await llama.loadModel({ modelPath: file, gpuLayers: 0, useMmap: false });
const context = await model.createContext({
  contextSize: Math.max(...sequences.map(({ length }) => length)) + 8,
  flashAttention: false,
  experimentalKvCacheKeyType: "F32",
  experimentalKvCacheValueType: "F32",
});
const options = { temperature: 1, topK: 0, topP: 1, minP: 0 };
const sequence = context.getSequence();
for (const tokens of sequences) {
  await sequence.clearHistory();
  const input = tokens.map((token) => [token, { generateNext: { probabilities: true, options } }]);
  const output = await sequence.controlledEvaluate(input);
  const vocabulary = output[0].next.probabilities.size;
  const rows = new Float32Array(tokens.length * vocabulary);
  for (const [i, { next }] of output.entries()) {
    for (const [token, p] of next.probabilities) rows[i * vocabulary + token] = p;
  }
  await new Promise((resolve) => process.stdout.write(new Uint8Array(rows.buffer), resolve));
}
process.exit(0);
