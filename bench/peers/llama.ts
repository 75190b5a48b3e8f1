/**
 * llama.cpp as a second opinion: F32 GGUF files of drawn weights in every architecture, the distribution after each of 256
 * given tokens, and of the 64 that are likeliest here behind them. Where the likeliest token agrees at every place, both write
 * the same 64 tokens greedily. `npx tsx bench/peers/llama.ts FOLDER`, FOLDER being one in which
 * `npm i --omit=optional --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64` was run. Fails above 1e-5,
 * or where a likeliest token differs.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fromHfConfig, resolveConfig, type ModelConfig } from "../../src/config/index.ts";
import { Rng } from "../../src/core/index.ts";
import type { Scorer } from "../../src/evaluate/index.ts";
import { openScorer } from "../../src/evaluate/node.ts";
import { writeGguf } from "../../src/formats/index.ts";
import { nodeFiles, openSafetensors } from "../../src/formats/node.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";
import { drawnGguf } from "../../test/helpers/drawn-gguf.ts";
import { drawWeights } from "../../test/helpers/drawn-weights.ts";
import { appendResult } from "../result-file.ts";
import { llamaDistributions } from "./llama-peer.ts";

const PROMPT = 256;
const GREEDY = 64;
const TOKENS = PROMPT + GREEDY;
const BAR = 1e-5;
const VOCABULARY = 264;
const GOLDENS = join(import.meta.dirname, "../../test/golden/checkpoints");

type Json = Readonly<Record<string, unknown>>;

/**
 * llama.cpp does not have groups by their maximum, half-split rotation of latent attention, or plain heads of another width
 * than dim / n_heads, and it rotates latent heads at an even place only.
 */
const ONE_GROUP = { topk_method: "greedy", n_group: 1, topk_group: 1 };
const CASES: [title: string, golden: string, change: Json][] = [
  ["llama, multi-head", "llama_mha", {}],
  ["llama, grouped-query", "llama_gqa", {}],
  ["deepseek, multi-head", "deepseek_mha", {}],
  ["deepseek, grouped-query", "deepseek_gqa", { head_dim: 6 }],
  ["deepseek2, softmax, direct q, YaRN", "v2_greedy", {}],
  ["deepseek2, softmax, q_lora", "v2_odd", ONE_GROUP],
  ["deepseek2, sigmoid and bias, direct q, YaRN", "v3_qdirect_half", { rope_interleave: true }],
  ["deepseek2, sigmoid, bias and groups, q_lora, YaRN", "v3_qlora_groups", {}],
  ["deepseek2, sigmoid, bias and groups, odd sizes", "v3_odd", { qk_nope_head_dim: 8 }],
];

async function modelOf(golden: string, change: Json): Promise<ModelConfig> {
  const reader = await openSafetensors(join(GOLDENS, `${golden}.safetensors`));
  await reader.close();
  const own = JSON.parse(reader.metadata.config!) as Json;
  const config = { ...own, max_position_embeddings: 512, vocab_size: VOCABULARY, ...change };
  return resolveConfig({ model: fromHfConfig(JSON.stringify(config)) }).model;
}

interface Answer {
  /** The prompt and what was written behind it. */
  readonly tokens: readonly number[];
  /** [tokens, vocabulary] */
  readonly probabilities: Float64Array;
}

async function ourAnswer(file: string, prompt: readonly number[]): Promise<Answer> {
  using backend = createNativeBackend();
  using scorer = await openScorer(file, backend);
  const tokens = [...prompt];
  while (tokens.length < TOKENS) {
    const last = await logitsOf(scorer, tokens, tokens.length - 1);
    tokens.push(last.indexOf(Math.max(...last)));
  }
  return { tokens, probabilities: softmaxRows(await logitsOf(scorer, tokens, 0), VOCABULARY) };
}

/** [tokens − from, VOCABULARY] */
async function logitsOf(scorer: Scorer, tokens: readonly number[], from: number): Promise<Float32Array> {
  const out = new Float32Array((tokens.length - from) * VOCABULARY);
  const targets = new Int32Array(tokens.length - from);
  let at = 0;
  for await (const rows of scorer.logits({ tokens: Int32Array.from(tokens), from, targets })) {
    out.set(rows, at);
    at += rows.length;
  }
  return out;
}

function softmaxRows(logits: Float32Array, columns: number): Float64Array {
  const out = new Float64Array(logits.length);
  for (let row = 0; row < logits.length; row += columns) {
    const part = Float64Array.from(logits.subarray(row, row + columns));
    const top = Math.max(...part);
    const powers = part.map((value) => Math.exp(value - top));
    const sum = powers.reduce((a, b) => a + b, 0);
    for (let i = 0; i < columns; i++) out[row + i] = powers[i]! / sum;
  }
  return out;
}

async function theirProbabilities(modules: string, file: string, tokens: readonly number[]): Promise<Float32Array> {
  for await (const rows of llamaDistributions(modules, file, [tokens], VOCABULARY)) return rows;
  throw new Error(`${file}: no probabilities`);
}

function compare(ours: Float64Array, theirs: Float32Array): { worst: number; sameTop: number; largest: number } {
  if (ours.length !== theirs.length) throw new Error(`${ours.length} values here, ${theirs.length} there`);
  let [worst, sameTop, largest] = [0, 0, 0];
  for (let row = 0; row < ours.length; row += VOCABULARY) {
    const [a, b] = [ours.subarray(row, row + VOCABULARY), theirs.subarray(row, row + VOCABULARY)];
    for (let i = 0; i < VOCABULARY; i++) worst = Math.max(worst, Math.abs(a[i]! - b[i]!));
    const [top, other] = [Math.max(...a), Math.max(...b)];
    largest = Math.max(largest, top);
    if (a.indexOf(top) === b.indexOf(other)) sameTop++;
  }
  return { worst, sameTop, largest };
}

const modules = resolve(process.argv[2] ?? ".");
const folder = mkdtempSync(join(tmpdir(), "fathom-llama-"));
const rng = new Rng(11, "tokens");
const prompt = [0, ...Array.from({ length: PROMPT - 1 }, () => 3 + Math.floor(rng.uniform() * 256))];
let failures = 0;
const cases: object[] = [];
try {
  for (const [title, golden, change] of CASES) {
    const model = await modelOf(golden, change);
    for (const splitKvB of model.attention === "mla" ? [true, false] : [true]) {
      const file = join(folder, "model.gguf");
      await writeGguf(nodeFiles, file, drawnGguf(model, drawWeights(model, 5), { splitKvB, type: "F32" }));
      const { tokens, probabilities } = await ourAnswer(file, prompt);
      const { worst, sameTop, largest } = compare(probabilities, await theirProbabilities(modules, file, tokens));
      const isGood = worst <= BAR && sameTop === TOKENS;
      if (!isGood) failures++;
      const name = model.attention === "mla" ? `${title}, ${splitKvB ? "new" : "old"} kv_b` : title;
      const figures = `max |Δp| ${worst.toExponential(1)}, top-1 ${sameTop}/${TOKENS}, largest p ${largest.toFixed(3)}`;
      console.log(`${name.padEnd(62)} ${figures}${isGood ? "" : "  BAD"}`);
      cases.push({ name, max_dp: worst, same_top1: sameTop, largest_p: largest });
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}
appendResult("llama-f32", { peer: "node-llama-cpp 3.22.1", prompt: PROMPT, greedy: GREEDY, cases });
process.exitCode = failures > 0 ? 1 : 0;
