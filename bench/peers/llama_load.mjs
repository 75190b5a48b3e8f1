/**
 * Loads one GGUF file in llama.cpp through node-llama-cpp and evaluates a few tokens:
 * `node llama_load.mjs FOLDER_OF_NODE_MODULES FILE`. A process of its own, since llama.cpp ends it where a model is not to
 * its liking. Prints one JSON line.
 */

import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules = "", file = ""] = process.argv.slice(2);
const entry = createRequire(join(modules, "noop.js")).resolve("node-llama-cpp");
const { getLlama } = await import(pathToFileURL(entry).href);
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: 1 });
const model = await llama.loadModel({ modelPath: file, gpuLayers: 0, useMmap: false });
const context = await model.createContext({ contextSize: 128, flashAttention: false });
const tokens = [0, 70, 71, 5, 200, 33];
const probabilities = { temperature: 1, topK: 0, topP: 1, minP: 0 };
const input = tokens.map((token) => [token, { generateNext: { probabilities: true, options: probabilities } }]);
const output = await context.getSequence().controlledEvaluate(input);
const entropies = output.map((/** @type {{ next: { probabilities: Map<number, number> } }} */ { next }) => {
  let entropy = 0;
  for (const p of next.probabilities.values()) entropy -= p > 0 ? p * Math.log(p) : 0;
  return entropy;
});
const { architecture } = model.fileInfo.metadata.general;
console.log(JSON.stringify({ architecture, vocabulary: output[0].next.probabilities.size, entropies }));
process.exit(0);
