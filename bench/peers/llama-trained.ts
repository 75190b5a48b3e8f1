/**
 * A model that Fathom has trained, as F16, Q8_0 and Q4_K, each file in Fathom and in llama.cpp: perplexity, divergence and
 * likeliest tokens on more than 20,000 tokens that were held out from its training, in windows of 512.
 *
 *     npx tsx bench/peers/llama-trained.ts LLAMA RUN
 *
 * LLAMA is a folder with node-llama-cpp, RUN one of `fathom train --corpus`. Fails where the perplexities differ by more than
 * 1 % (Q4_K 2 %), the mean divergence is above 0.01 nats, the likeliest tokens agree at less than 97 % of the places, or less
 * than 80 % of the bytes of the Q4_K file are Q4_K.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { cacheDir } from "../../src/cli/options.ts";
import { planConversion } from "../../src/convert/node.ts";
import { createSplit, findCorpus } from "../../src/data/index.ts";
import { openCorpus } from "../../src/data/node.ts";
import { SavedRun } from "../../src/train/node.ts";
import { appendResult } from "../result-file.ts";
import { bytesByType, divergenceFields, engineDivergence, type EngineDivergence } from "./llama-divergence.ts";

const WINDOW = 512;
const TOKENS = 20_000;
const PERPLEXITY_BARS = { f16: 0.01, q8_0: 0.01, q4_k: 0.02 };
const KL_BAR = 0.01;
const TOP_BAR = 0.97;
const OWN_TYPE_BAR = 0.8;

/** Windows of held-out text, each behind the begin of a sentence, until they have more than TOKENS tokens to foretell. */
async function heldOutWindows(run: SavedRun): Promise<number[][]> {
  if (run.data.kind !== "corpus") throw new Error(`${run.path}: must be trained on a corpus`);
  const tokenizer = await run.tokenizer();
  const isHeldOut = createSplit(run.config.training.valFraction);
  const windows: number[][] = [];
  let number = 0;
  for await (const text of (await openCorpus(findCorpus(run.data.name), { cacheDir: cacheDir() })).documents()) {
    if (!isHeldOut(number++)) continue;
    const ids = Array.from(tokenizer.encode(text, { allowSpecial: false }));
    for (let at = 0; at + WINDOW - 1 <= ids.length; at += WINDOW - 1) {
      windows.push([tokenizer.bosId, ...ids.slice(at, at + WINDOW - 1)]);
      if (windows.length * (WINDOW - 1) > TOKENS) return windows;
    }
  }
  throw new Error(`${run.data.name}: fewer than ${TOKENS} tokens are held out`);
}

async function convert(source: string, target: string, dtype: string): Promise<void> {
  const conversion = await planConversion({ source, target, dtype, fusedExperts: false });
  for (const notice of conversion.plan.notices) console.log(`note: ${notice}`);
  try {
    await conversion.run(() => {});
  } finally {
    await conversion.close();
  }
}

function isWithin(dtype: keyof typeof PERPLEXITY_BARS, figures: EngineDivergence, ownShare: number): boolean {
  const { fathom, llama } = figures.perplexity;
  return (
    Math.abs(fathom / llama - 1) <= PERPLEXITY_BARS[dtype] &&
    figures.meanKl <= KL_BAR &&
    figures.sameTop >= TOP_BAR &&
    (dtype !== "q4_k" || ownShare >= OWN_TYPE_BAR)
  );
}

const [modules, path] = process.argv.slice(2);
if (modules === undefined || path === undefined) throw new Error("give LLAMA and RUN");
const run = await SavedRun.open(path);
const windows = await heldOutWindows(run);
const folder = mkdtempSync(join(tmpdir(), "fathom-llama-"));
const files: object[] = [];
try {
  for (const dtype of ["f16", "q8_0", "q4_k"] as const) {
    const file = join(folder, `${dtype}.gguf`);
    await convert(run.path, file, dtype);
    const types = await bytesByType(file);
    const total = types.reduce((sum, [, bytes]) => sum + bytes, 0);
    const ownShare = (new Map(types).get(dtype.toUpperCase()) ?? 0) / total;
    const figures = await engineDivergence(resolve(modules), file, windows);
    const isGood = isWithin(dtype, figures, ownShare);
    if (!isGood) process.exitCode = 1;
    const { fathom, llama } = figures.perplexity;
    console.log(
      [
        `${dtype.padEnd(5)} perplexity ${fathom.toFixed(4)} here, ${llama.toFixed(4)} there`,
        `KL mean ${figures.meanKl.toExponential(2)}, max ${figures.maxKl.toExponential(2)}`,
        `top-1 ${(100 * figures.sameTop).toFixed(2)} %`,
        `${(100 * ownShare).toFixed(1)} % of the bytes ${dtype.toUpperCase()}${isGood ? "" : "  BAD"}`,
      ].join("; "),
    );
    files.push({ dtype, ...divergenceFields(figures), own_type_share: ownShare, bytes: total });
  }
} finally {
  rmSync(folder, { recursive: true });
}
const { steps } = run.config.training;
appendResult("llama-trained", { peer: "node-llama-cpp 3.22.1", data: run.data, steps, window: WINDOW, files });
