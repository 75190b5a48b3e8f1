/**
 * Files that llama-quantize has made, in Fathom and in llama.cpp: a model of drawn weights whose rows have 128, 512, 1408,
 * 2048 and 10944 values, the sizes of V2-Lite.
 *
 *     npx tsx bench/peers/llama-quantised.ts LLAMA LLAMA_QUANTIZE
 *
 * LLAMA is a folder with node-llama-cpp; LLAMA_QUANTIZE the tool of the same release, compiled from its sources. Prints for
 * each file the types that its rows got, and fails where the mean divergence is above 0.01 nats. F16 comes first: there
 * llama.cpp does not round the activations to 8 bits, as it does before it multiplies with quantised rows. Needs 2 GB on the
 * disk and about two minutes.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { blueprint, releasedTensors } from "../../src/blueprint/index.ts";
import { hfConfigText, resolveConfig } from "../../src/config/index.ts";
import { planConversion } from "../../src/convert/node.ts";
import { encodeBlocks, Rng } from "../../src/core/index.ts";
import { writeSafetensors } from "../../src/formats/index.ts";
import { nodeFiles, openGguf } from "../../src/formats/node.ts";
import { saveTokenizer } from "../../src/tokenizer/node.ts";
import { createByteTokenizer } from "../../test/helpers/byte-tokenizer.ts";
import { appendResult } from "../result-file.ts";
import { divergenceFields, engineDivergence } from "./llama-divergence.ts";

const TYPES = ["Q8_0", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K"];
const ROWS = [128, 512, 1408, 2048, 10944];
const EXPERTS = { nRoutedExperts: 4, nActivatedExperts: 2, nSharedExperts: 1 };
const SLICE = { nLayers: 2, nDenseLayers: 1, vocabSize: 384, ...EXPERTS, dtype: "bf16" };
const KL_BAR = 0.01;
const [WINDOWS, WINDOW] = [2, 256];

/**
 * Matrices that keep the size of what they multiply, so that an error of rounding does not grow on its way either; a head
 * twice as large, for distributions far from uniform.
 */
function drawn(name: string, shape: readonly number[]): Float32Array {
  const rng = new Rng(1, name);
  const values = new Float32Array(shape.reduce((product, n) => product * n, 1));
  const uniform = (): number => rng.nextUint32() / 2 ** 31 - 1;
  if (shape.length === 1) return values.map(() => 1 + 0.3 * uniform());
  const inputs = name === "model.embed_tokens.weight" ? 1 : shape.at(-1)!;
  const size = (name === "lm_head.weight" ? 2 : 1) * Math.sqrt(3 / inputs);
  return values.map(() => size * uniform());
}

async function writeFolder(folder: string): Promise<void> {
  const { model } = resolveConfig({ preset: "deepseek-v2-lite", model: SLICE });
  mkdirSync(folder);
  const tensors = [...releasedTensors(blueprint(model))].map(({ name, shape }) => ({
    ...{ name, shape, dtype: "BF16" as const },
    chunks: () => [encodeBlocks("BF16", drawn(name, shape))],
  }));
  await writeSafetensors(nodeFiles, join(folder, "model.safetensors"), tensors);
  writeFileSync(join(folder, "config.json"), hfConfigText(model, { bos: 0, eos: 1 }));
  await saveTokenizer(createByteTokenizer(), folder);
}

async function writeF16(folder: string): Promise<string> {
  const [source, target] = [join(folder, "source"), join(folder, "f16.gguf")];
  await writeFolder(source);
  const conversion = await planConversion({ source, target, dtype: "f16" });
  try {
    await conversion.run(() => {});
  } finally {
    await conversion.close();
    rmSync(source, { recursive: true });
  }
  return target;
}

/** The types of the matrices by the length of their rows; norms and router are not quantised. */
async function typesByRow(file: string): Promise<Record<number, string[]>> {
  const reader = await openGguf(file);
  await reader.close();
  const types = new Map<number, Set<string>>(ROWS.map((row) => [row, new Set()]));
  for (const { shape, dtype } of reader.tensors.values()) {
    if (shape.length === 1 || dtype === "F32") continue;
    const row = types.get(shape.at(-1)!);
    if (row === undefined) throw new Error(`${file}: rows of ${shape.at(-1)}`);
    row.add(dtype);
  }
  return Object.fromEntries([...types].map(([row, names]) => [row, [...names].toSorted()]));
}

const [modules, quantize] = process.argv.slice(2);
if (modules === undefined || quantize === undefined) throw new Error("give LLAMA and LLAMA_QUANTIZE");
const rng = new Rng(3, "tokens");
const sequences = Array.from({ length: WINDOWS }, () => [
  0,
  ...Array.from({ length: WINDOW - 1 }, () => 3 + Math.floor(rng.uniform() * 256)),
]);
const folder = mkdtempSync(join(tmpdir(), "fathom-llama-"));
const files: object[] = [];
try {
  const f16 = await writeF16(folder);
  for (const type of ["F16", ...TYPES]) {
    const file = join(folder, `${type}.gguf`);
    execFileSync(resolve(quantize), [f16, file, type, "2"], { stdio: "ignore" });
    const rows = await typesByRow(file);
    const divergence = await engineDivergence(resolve(modules), file, sequences);
    const { meanKl, maxKl, entropy } = divergence;
    const isGood = meanKl <= KL_BAR;
    if (!isGood) process.exitCode = 1;
    const types = Object.entries(rows).map(([row, names]) => `${row} ${names.join(" ")}`);
    const figures = `KL mean ${meanKl.toExponential(2)}, max ${maxKl.toExponential(2)}, entropy ${entropy.toFixed(2)}`;
    console.log(`${type.padEnd(6)} ${figures}; rows ${types.join(", ")}${isGood ? "" : "  BAD"}`);
    files.push({ type, ...divergenceFields(divergence), rows });
    rmSync(file);
  }
} finally {
  rmSync(folder, { recursive: true });
}
appendResult("llama-quantised", { peer: "node-llama-cpp 3.22.1", windows: WINDOWS, window: WINDOW, files });
