import { describe, expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { device } from "./devices.ts";
import { completeLayout, type LayoutInput } from "./layout.ts";
import { NF4_BYTES, precisionRecipe } from "./precision.ts";
import { layerCounts, modelShape, withAdapters, withoutMtp, type ModelShape } from "./shape.ts";
import { createTrainingEvaluator, type TrainingEvaluator, type TrainingJob } from "./training.ts";
import { flopsPerToken } from "./work.ts";

const shapeOf = (name: string): ModelShape => modelShape(resolveConfig(name).model);
const v3 = shapeOf("deepseek-v3");
const HALF = { computeShare: 0.5, hiddenShare: 0, basis: "test", calibrated: false };

function evaluatorOf(shape: ModelShape, count: number, changes: Partial<TrainingJob> = {}): TrainingEvaluator {
  const cluster = { device: device("h800"), count };
  return createTrainingEvaluator({
    ...{ shape, recipe: precisionRecipe("bf16"), cluster, efficiency: HALF, margin: 0.85 },
    ...changes,
  });
}

const states = (evaluator: TrainingEvaluator, input: LayoutInput, stage: number): number => {
  const layout = completeLayout(input, evaluator.job.cluster.count);
  const names = ["weights", "gradients", "master", "moments"].map((part) => `memory.${part}`);
  return evaluator.read(layout, evaluator.stages(layout)[stage]!, names).reduce((a, b) => a + b);
};

describe("states on a rank", () => {
  const typical: LayoutInput = { pp: 16, ep: 64, globalBatchSize: 15360, seqLen: 4096 };
  const gib = (bytes: number): number => Math.round((bytes / 2 ** 30) * 100) / 100;

  test("of a middle stage of V3 are 17.18 GiB on 1,024 devices and 13.16 GiB on 2,048", () => {
    expect(gib(states(evaluatorOf(v3, 1024), typical, 1))).toBe(17.18);
    expect(gib(states(evaluatorOf(v3, 2048), typical, 1))).toBe(13.16);
  });

  test("are 12.70 GB with bf16 moments", () => {
    const recipe = precisionRecipe("bf16-bf16-moments");
    expect(states(evaluatorOf(v3, 2048, { recipe }), typical, 1) / 1e9).toBeCloseTo(12.7, 2);
  });

  test("of V2-Lite on eight devices are 282.7, 117.8, 62.8 and 35.3 GB with ZeRO 0 to 3", () => {
    const evaluator = evaluatorOf(shapeOf("deepseek-v2-lite"), 8);
    const total = ([0, 1, 2, 3] as const).map((zero) => {
      const bytes = states(evaluator, { zero, globalBatchSize: 8, seqLen: 4096 }, 0);
      return Math.round(bytes / 1e8) / 10;
    });
    expect(total).toEqual([282.7, 117.8, 62.8, 35.3]);
  });

  test("shard dense and expert parameters apart", () => {
    const evaluator = evaluatorOf(v3, 2048);
    const layout = completeLayout({ ...typical, tp: 2, etp: 2, ep: 32 }, 2048);
    const [stage] = evaluator.stages(layout).slice(1);
    const read = (name: string): number => evaluator.read(layout, stage!, [name])[0]!;
    expect([read("ranks.dense"), read("ranks.expert")]).toEqual([64, 2]);
    const expert = 3 * 7168 * 2048 * 256;
    expect(read("expert_params")).toBe((4 * expert) / 32 / 2);
    const whole = 7168 * 1536 + 1536 + 7168 * 576 + 512 + 256 * 7168 + 2 * 7168;
    const cut = 1536 * 128 * 192 + 512 * 128 * 256 + 7168 * 128 * 128 + 3 * 7168 * 2048;
    expect(read("params")).toBe(4 * (whole + cut / 2));
  });

  test("with ZeRO-3 include the whole weights of two layers", () => {
    const evaluator = evaluatorOf(v3, 1024);
    const at = (zero: 2 | 3): number =>
      evaluator.memoryParts(completeLayout({ ep: 64, zero, globalBatchSize: 1024, seqLen: 4096 }, 1024)).gathered;
    const layer = v3.kinds[0]!.parameters.filter(({ kind }) => kind === "trainable").reduce(
      (sum, { elements, expert }) => sum + elements / (expert ? 64 : 1),
      0,
    );
    expect([at(2), at(3)]).toEqual([0, 2 * 2 * layer]);
  });
});

test("LoRA keeps states for its factors alone, QLoRA the base in nf4", () => {
  const lite = shapeOf("deepseek-v2-lite");
  const targets = ["attn.wq", "attn.wkv_a", "attn.wkv_b", "attn.wo"];
  const shape = withAdapters(lite, { rank: 16, targets });
  const trained = 7_105_536;
  const base = 15_706_484_224;
  const parts = (changes: Partial<TrainingJob>) =>
    evaluatorOf(shape, 1, changes).memoryParts(completeLayout({ globalBatchSize: 1, seqLen: 4096 }, 1));
  expect(parts({})).toMatchObject({
    weights: 2 * (base + trained),
    gradients: 4 * trained,
    master: 4 * trained,
    moments: 8 * trained,
  });
  expect(parts({ frozenBytes: NF4_BYTES }).weights).toBeCloseTo(base * 0.515869140625 + 2 * trained, 3);
});

test("logits are six bytes for each token and word, less in chunks and with tensor parallelism", () => {
  const logits = (changes: Partial<TrainingJob>, input: Partial<LayoutInput> = {}): number =>
    evaluatorOf(v3, 8, changes).memoryParts(completeLayout({ globalBatchSize: 8, seqLen: 4096, ...input }, 8)).logits;
  expect(logits({})).toBe(6 * 4096 * 129_280);
  expect(logits({ lossChunks: 8 })).toBe((6 * 4096 * 129_280) / 8);
  expect(logits({}, { tp: 8 })).toBe((6 * 4096 * 129_280) / 8);
});

describe("time", () => {
  test("of a dense layer on one device is its products at the rate, its tensors at memory speed", () => {
    const evaluator = evaluatorOf(shapeOf("deepseek-v2-lite"), 1);
    const layout = completeLayout({ globalBatchSize: 1, seqLen: 4096 }, 1);
    const read = (name: string): number => evaluator.explain(layout, name).value;
    const rate = 989e12 / 2;
    const attention = 2048 * 3072 + 2048 * 576 + 512 + 512 * 4096 + 2048 * 2048;
    const dense = attention + 3 * 2048 * 10_944 + 2 * 2048;
    expect(read("dense.time.dense")).toBeCloseTo((2 * dense * 4096) / rate, 12);
    expect(read("dense.time.core")).toBeCloseTo((2 * 16 * 320 * 2048 * 4096) / rate, 12);
    const kept = 4096 * (2 * (5 * 2048 + 2 * 512 + 16 * (192 + 192 + 128 + 128) + 3 * 10_944) + 4 * 16);
    expect(read("dense.act")).toBe(kept - 4096 * 2 * 2048);
    expect(read("dense.time.other")).toBeCloseTo((2 * read("dense.act")) / (0.8 * 3.35e12), 12);
  });

  test("of the stages' products is that of the model's FLOPs", () => {
    const shape = withoutMtp(v3);
    const evaluator = evaluatorOf(shape, 16);
    const layout = completeLayout({ pp: 16, globalBatchSize: 16, seqLen: 4096 }, 16);
    const kinds = layerCounts(shape).map((count, i) => count * evaluatorRead(evaluator, layout, shape.kinds[i]!.name));
    const head = 2 * (7168 * 129_280 + 7168);
    expect(kinds.reduce((a, b) => a + b) + head).toBe(flopsPerToken(shape, { seqLen: 4096 }).forward);
  });

  test("of a step is its micro-batches, the bubble, exposed data parallelism and the optimizer", () => {
    const evaluator = evaluatorOf(v3, 2048);
    const layout = completeLayout({ pp: 16, ep: 64, globalBatchSize: 15360, seqLen: 4096 }, 2048);
    const { stepSec, workSec, bubbleSec, dataParallelSec, optimizerSec } = evaluator.evaluate(layout);
    expect(stepSec).toBe(workSec + bubbleSec + dataParallelSec + optimizerSec);
    expect(bubbleSec).toBeCloseTo((workSec / 120) * 15, 9);
  });
});

test("all-to-all hides behind the other direction of DualPipe, elsewhere at most half; a ring at most behind attention", () => {
  const efficiency = { ...HALF, hiddenShare: 1 };
  const evaluator = evaluatorOf(v3, 2048, { efficiency });
  const read = (input: Partial<LayoutInput>, name: string): number =>
    evaluator.explain(completeLayout({ pp: 16, ep: 64, globalBatchSize: 15360, seqLen: 4096, ...input }, 2048), name)
      .value;
  expect(read({ schedule: "dualpipe" }, "moe.exposed.forward")).toBe(0);
  expect(read({ schedule: "1f1b" }, "moe.exposed.forward")).toBeCloseTo(read({}, "moe.ep.time") / 2, 12);
  const ring = { schedule: "dualpipe", cp: 4 } as const;
  expect(read(ring, "moe.cp.time")).toBeGreaterThan(read(ring, "moe.time.core"));
  expect(read(ring, "moe.cp.exposed")).toBeCloseTo(read(ring, "moe.cp.time") - read(ring, "moe.time.core"), 12);
});

function evaluatorRead(evaluator: TrainingEvaluator, layout: ReturnType<typeof completeLayout>, kind: string): number {
  return evaluator.explain(layout, `${kind}.flops.forward`).value;
}

describe("communication of V3 at 4,096 tokens", () => {
  const read = (input: Partial<LayoutInput>, name: string, precision = "bf16"): number => {
    const layout = completeLayout({ globalBatchSize: 15360, seqLen: 4096, pp: 16, ep: 64, ...input }, 2048);
    return evaluatorOf(v3, 2048, { recipe: precisionRecipe(precision) }).explain(layout, name).value;
  };
  const mega = (bytes: number): number => Math.round(bytes / 1e5) / 10;

  test("TP8 moves 205.5 MB a layer and direction", () => {
    expect(mega(read({ tp: 8 }, "moe.tp.bytes"))).toBe(205.5);
  });

  test("dispatch in fp8 sends 59,136 bytes a token for eight experts, combine twice the elements in bf16", () => {
    expect(8 * read({}, "moe.ep.copy", "fp8")).toBe(59_136 + 8 * 7168 * 2);
  });

  test("node-limited routing sends at most four copies over the network, of which an eighth stays", () => {
    const copies = read({}, "moe.ep.copies");
    expect(copies).toBe(4);
    expect(read({}, "moe.ep.network")).toBe((4096 * 4 * 7 * 7168 * 4) / 8);
  });

  test("where a group of experts spans nodes, a token goes to all nodes that its experts are on", () => {
    // 256 ranks are 32 nodes, four for each of the eight groups: eight experts fall on 7.18 of them.
    expect(read({ pp: 1, ep: 256 }, "moe.ep.copies")).toBeCloseTo(32 * (1 - (31 / 32) ** 8), 12);
    expect(read({ pp: 8, ep: 128 }, "moe.ep.copies")).toBeCloseTo(16 * (1 - (15 / 16) ** 8), 12);
    expect(read({ ep: 16 }, "moe.ep.copies")).toBeCloseTo(2 * (1 - 2 ** -8), 12);
  });

  test("a pipeline hop is 58.7 MB", () => {
    expect(mega(read({}, "pp.bytes"))).toBe(58.7);
  });

  test("DualPipeV passes each rank twice and sends twice, DualPipe once", () => {
    const hop = read({}, "pp.bytes");
    expect(read({ schedule: "dualpipe" }, "pp.bytes")).toBe(hop);
    expect(read({ schedule: "dualpipev" }, "pp.bytes")).toBe(2 * hop);
    expect(read({ schedule: "dualpipev" }, "pp.time")).toBeCloseTo(2 * read({}, "pp.time"), 12);
  });

  test("a middle stage reduces 3.70 GB of dense gradients and gathers 1.85 GB, experts 1.41 and 0.70 GB", () => {
    const evaluator = evaluatorOf(v3, 2048);
    const layout = completeLayout({ globalBatchSize: 15360, seqLen: 4096, pp: 16, ep: 64 }, 2048);
    const [dense, expert] = evaluator.read(layout, evaluator.stages(layout)[1]!, ["dp.dense.bytes", "dp.expert.bytes"]);
    expect(dense! / 1e9).toBeCloseTo(3.7 + 1.85, 2);
    expect(expert! / 1e9).toBeCloseTo((3 * 2 * 704_643_072) / 2 / 1e9, 9);
  });
});

test("an unknown number is refused with names that exist", () => {
  const evaluator = evaluatorOf(v3, 8);
  const layout = completeLayout({ globalBatchSize: 8, seqLen: 4096 }, 8);
  expect(() => evaluator.explain(layout, "memory.act")).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: --why: must be a number of the plan, got "memory.act"; for example memory.activations]`,
  );
});

test("a device that lacks what the plan needs is refused", () => {
  expect(() =>
    evaluatorOf(v3, 8, { cluster: { device: device("a100"), count: 8 }, recipe: precisionRecipe("fp8") }),
  ).toThrow(/must have fp8/);
});
