/**
 * What `gemm_impl` costs and gives on a checkpoint in fp8 blocks: the distance of bf16 and fp8 from f32 in the distribution
 * of the next token, and the speed of prompts and of decoding, taking turns:
 *
 *     npx tsx bench/infer/gemm-impl.bench.ts [PRESET] [--model FOLDER] [--rounds 5]
 *
 * Without FOLDER the weights are random ones of PRESET (lite-slice). Appends one JSON line to bench/results/gemm-impl.jsonl.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { resolveConfig } from "../../src/config/index.ts";
import { Rng } from "../../src/core/index.ts";
import type { Engine, GemmImpl } from "../../src/infer/index.ts";
import { openEngine } from "../../src/infer/node.ts";
import { createNativeBackend, type NativeBackend } from "../../src/kernels/node.ts";
import { DeepSeekModel, ropeTable } from "../../src/model/index.ts";
import { openWeights, readModelConfig } from "../../src/model/node.ts";
import { Scope } from "../../src/tensor/index.ts";
import { writeRandomFolder } from "../../test/helpers/random-checkpoint.ts";
import { median } from "../peer.ts";
import { appendResult } from "../result-file.ts";

const IMPLS: readonly GemmImpl[] = ["f32", "bf16", "fp8"];
const TOKENS = 512;
const DECODED = 32;

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { model: { type: "string" }, rounds: { type: "string", default: "5" } },
});
const preset = positionals[0] ?? "lite-slice";

interface Accuracy {
  /** KL(f32‖this) in nats, the mean over all tokens. */
  readonly kl: number;
  readonly topOneAgreement: number;
  /** In parts of the range of all logits. */
  readonly maxLogitError: number;
}

async function logitsOf(backend: NativeBackend, folder: string, compute: GemmImpl): Promise<Float32Array> {
  using scope = Scope.root(backend, { compute });
  const { model: config } = await readModelConfig(folder);
  const model = new DeepSeekModel({ ...config, nMtpLayers: 0 }, await openWeights(scope, folder, config));
  const rng = new Rng(3, "tokens");
  const ids = Int32Array.from({ length: TOKENS }, () => Math.floor(rng.uniform() * config.vocabSize));
  const at = {
    positions: scope.from(
      Int32Array.from(ids, (_, i) => i),
      [TOKENS],
      "i32",
    ),
    seqStarts: scope.from([0, TOKENS], [2], "i32"),
    ropeTable: scope.from(ropeTable(config, TOKENS), [TOKENS, config.qkRopeHeadDim]),
  };
  return (await model.logits(scope, scope.from(ids, [TOKENS], "i32"), at).read()) as Float32Array;
}

function compare(found: Float32Array, exact: Float32Array): Accuracy {
  const vocab = exact.length / TOKENS;
  const range = exact.reduce((a, b) => Math.max(a, b)) - exact.reduce((a, b) => Math.min(a, b));
  let [kl, agreed, worst] = [0, 0, 0];
  for (let at = 0; at < exact.length; at += vocab) {
    const [a, b] = [exact.subarray(at, at + vocab), found.subarray(at, at + vocab)];
    const [normA, normB] = [logSumExp(a), logSumExp(b)];
    for (let i = 0; i < vocab; i++) {
      kl += (Math.exp(a[i]! - normA) * (a[i]! - normA - (b[i]! - normB))) / TOKENS;
      worst = Math.max(worst, Math.abs(a[i]! - b[i]!));
    }
    if (a.indexOf(Math.max(...a)) === b.indexOf(Math.max(...b))) agreed++;
  }
  return { kl, topOneAgreement: agreed / TOKENS, maxLogitError: worst / range };
}

function logSumExp(logits: Float32Array): number {
  const max = logits.reduce((a, b) => Math.max(a, b));
  return max + Math.log(logits.reduce((sum, value) => sum + Math.exp(value - max), 0));
}

/** Tokens per second of reading a prompt and of decoding behind it. */
async function speedOf(engine: Engine): Promise<{ prefill: number; decode: number }> {
  const prompt = Array.from({ length: TOKENS - 1 }, (_, i) => 3 + ((7 * i) % 200));
  const generation = { ...engine.settings.generation, temperature: 0, maxTokens: DECODED };
  let decode = 0;
  const start = performance.now();
  for await (const { end } of engine.generate(prompt, { ...generation, maxTokens: 1 })) void end;
  const prefill = (1000 * TOKENS) / (performance.now() - start);
  for await (const { end } of engine.generate(prompt, generation)) decode = end?.tokensPerSec ?? 0;
  return { prefill, decode };
}

async function main(folder: string): Promise<void> {
  using backend = createNativeBackend({ threads: 2 });
  const exact = await logitsOf(backend, folder, "f32");
  const speeds = new Map(IMPLS.map((impl) => [impl, { prefill: [] as number[], decode: [] as number[] }]));
  const loads: number[] = [];
  const engines = new Map<GemmImpl, Engine>();
  for (const gemmImpl of IMPLS) {
    engines.set(gemmImpl, await openEngine({ folder, backend, gemmImpl, now: () => performance.now() }));
  }
  for (const engine of engines.values()) await speedOf(engine);
  for (let round = 0; round < Number(flags.rounds); round++) {
    loads.push(loadavg()[0]!);
    for (const [impl, engine] of engines) {
      const { prefill, decode } = await speedOf(engine);
      speeds.get(impl)!.prefill.push(prefill);
      speeds.get(impl)!.decode.push(decode);
    }
  }
  const rows: object[] = [];
  for (const gemmImpl of IMPLS) {
    const accuracy =
      gemmImpl === "f32" ? compare(exact, exact) : compare(await logitsOf(backend, folder, gemmImpl), exact);
    const { prefill, decode } = speeds.get(gemmImpl)!;
    const row = { ...accuracy, prefill: median(prefill), decode: median(decode) };
    rows.push({
      gemm_impl: gemmImpl,
      kl: row.kl,
      top_1_agreement: row.topOneAgreement,
      max_logit_error: row.maxLogitError,
      prefill: row.prefill,
      decode: row.decode,
    });
    console.log(
      `${gemmImpl.padEnd(5)} KL ${row.kl.toExponential(2)} nats, top-1 ${(100 * row.topOneAgreement).toFixed(1)} %, ` +
        `prefill ${row.prefill.toFixed(0)} tokens/s, decode ${row.decode.toFixed(1)} tokens/s`,
    );
  }
  for (const engine of engines.values()) engine[Symbol.dispose]();
  const model = flags.model === undefined ? `${preset}, random` : "given";
  appendResult("gemm-impl", { model, isa: backend.isa, tokens: TOKENS, decoded: DECODED, loads, rows });
}

if (flags.model !== undefined) await main(flags.model);
else {
  const folder = mkdtempSync(join(tmpdir(), "fathom-gemm-impl-"));
  try {
    const { model } = resolveConfig({
      preset,
      model: { nMtpLayers: 0, dtype: "fp8", vocabSize: 8192, maxSeqLen: 1024 },
    });
    await writeRandomFolder(folder, model);
    await main(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
