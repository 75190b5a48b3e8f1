import fc from "fast-check";
import { expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { device } from "./devices.ts";
import { efficiencyFor } from "./efficiency.ts";
import { brokenIdentity, completeLayout, SCHEDULES, worldSize, type Layout, type ZeroStage } from "./layout.ts";
import { ledgerParts, memoryLedger } from "./ledger.ts";
import { NF4_BYTES, precisionRecipe } from "./precision.ts";
import { SEARCH_GRID } from "./search.ts";
import { modelShape, withAdapters, withoutMtp, type ModelShape } from "./shape.ts";
import { createTrainingEvaluator } from "./training.ts";

const shapeOf = (name: string, settings = {}): ModelShape => modelShape(resolveConfig(name, settings).model);
const v3 = shapeOf("deepseek-v3");
const lora = { rank: 16, targets: ["attn.wq_a", "attn.wq_b", "attn.wo", "ffn.experts.w1", "ffn.experts.w2"] };
const tied = shapeOf("tiny", { tie_word_embeddings: true });

const JOBS = [
  { shape: v3, precision: "fp8" },
  { shape: withoutMtp(v3), precision: "bf16" },
  { shape: shapeOf("deepseek-v2-lite"), precision: "bf16-bf16-moments" },
  { shape: withAdapters(shapeOf("deepseek-v2-lite"), lora), precision: "bf16", frozenBytes: NF4_BYTES },
  { shape: tied, precision: "fp32" },
  { shape: withAdapters(tied, { rank: 4, targets: ["attn.wo"] }), precision: "bf16", frozenBytes: NF4_BYTES },
].map(({ precision, ...job }) => {
  const cluster = { device: device("a100"), count: 2 ** 20 };
  const recipe = { ...precisionRecipe(precision), compute: "bf16" as const };
  const efficiency = efficiencyFor({ cluster, format: "bf16", family: "moe" });
  return createTrainingEvaluator({ ...job, recipe, cluster, efficiency, margin: 0.85, lossChunks: 2 });
});

const power = (most: number) => fc.integer({ min: 0, max: Math.log2(most) }).map((n) => 2 ** n);

const layouts = fc
  .record({
    tp: power(8),
    pp: power(32),
    vp: power(4),
    cp: power(4),
    ep: power(64),
    etp: power(4),
    dp: power(256),
    zero: fc.constantFrom<ZeroStage>(0, 1, 2, 3),
    recompute: fc.constantFrom(...SEARCH_GRID.recompute, "first-30" as const),
    schedule: fc.constantFrom(...SCHEDULES),
    sequenceParallel: fc.boolean(),
    microBatchSize: power(8),
    rounds: fc.integer({ min: 1, max: 5 }),
  })
  .map(({ rounds, ...layout }): Layout => {
    const { dp, microBatchSize, pp, schedule } = layout;
    const vp = schedule === "interleaved" ? Math.max(2, layout.vp) : 1;
    const globalBatchSize = dp * microBatchSize * 2 * pp * rounds;
    return { ...completeLayout({ ...layout, globalBatchSize, seqLen: 4096 }, 1), dp, vp };
  });

test("on 10,000 random layouts the tensors of the ledger sum to what the evaluator counts by buckets", () => {
  let checked = 0;
  const arbitrary = fc.record({ job: fc.constantFrom(...JOBS), layout: layouts });
  fc.assert(
    fc.property(arbitrary, ({ job, layout }) => {
      fc.pre(brokenIdentity(layout, job.job.shape, worldSize(layout)) < 0);
      checked++;
      const parts = ledgerParts(memoryLedger(job, layout));
      for (const [part, bytes] of Object.entries(job.memoryParts(layout))) {
        expectEqual(parts[part as keyof typeof parts], bytes, `${part} of ${JSON.stringify(layout)}`);
      }
      const total = Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);
      expectEqual(total, job.evaluate(layout).memoryBytes, JSON.stringify(layout));
    }),
    { numRuns: 10_000, seed: 1, maxSkipsPerRun: 20 },
  );
  expect(checked).toBeGreaterThanOrEqual(10_000);
}, 120_000);

/** Sums of the same terms in another order. */
function expectEqual(a: number, b: number, what: string): void {
  if (Math.abs(a - b) > 1e-9 * Math.max(a, b)) throw new Error(`${what}: ${a} must be ${b}`);
}

test("the copy of a tied embedding below adapters is frozen on the last stage, in the ledger and in the buckets", () => {
  const job = JOBS.at(-1)!;
  const layout = completeLayout({ pp: 2, globalBatchSize: 2, seqLen: 64 }, 2);
  const lines = memoryLedger(job, layout, 1);
  const copy = lines.filter(({ name }) => name === "embed (copy)");
  expect(copy.map(({ part, bytes }) => [part, bytes])).toEqual([["weights", tied.vocabSize * tied.dim * NF4_BYTES]]);
  const parts = ledgerParts(lines);
  const [weights, gradients, moments] = job.read(layout, job.stages(layout)[1]!, [
    ...["memory.weights", "memory.gradients", "memory.moments"],
  ]);
  expectEqual(parts.weights, weights!, "weights");
  expectEqual(parts.gradients, gradients!, "gradients");
  expectEqual(parts.moments, moments!, "moments");
});

test("the fullest stage is the fullest of all stages", () => {
  const job = JOBS[0]!;
  const layout = completeLayout({ pp: 16, ep: 64, globalBatchSize: 15360, seqLen: 4096 }, 2048);
  const totals = job.stages(layout).map((stage) => job.read(layout, stage, ["memory.total"])[0]!);
  expect(job.evaluate(layout).memoryBytes).toBe(Math.max(...totals));
});

test("a line says how its bytes come about", () => {
  const layout = completeLayout({ pp: 16, ep: 64, globalBatchSize: 15360, seqLen: 4096 }, 2048);
  const lines = memoryLedger(JOBS[0]!, layout, 1);
  expect(lines.find(({ name, part }) => name === "layers.4.ffn.experts.w1" && part === "moments")).toEqual({
    name: "layers.4.ffn.experts.w1",
    part: "moments",
    bytes: (256 * 2048 * 7168 * 4) / 64 / 2,
    derivation: "3758096384 elements × 4 B ÷ 64 ranks ÷ 2 shards",
  });
  expect(lines.find(({ name }) => name === "layers.4.act.q")?.derivation).toBe(
    "201326592 B × 1 kept × 15 micro-batches in flight",
  );
});
