import { expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { device } from "./devices.ts";
import { efficiencyFor } from "./efficiency.ts";
import { completeLayout, type LayoutInput } from "./layout.ts";
import { precisionRecipe } from "./precision.ts";
import { modelShape, type LayerKind, type ModelShape } from "./shape.ts";
import { createTrainingEvaluator } from "./training.ts";

function evaluatorOf(shape: ModelShape, count: number, precision = "bf16") {
  const cluster = { device: device("h800"), count };
  const efficiency = efficiencyFor({ cluster, format: "bf16", family: "moe" });
  return createTrainingEvaluator({ shape, recipe: precisionRecipe(precision), cluster, efficiency, margin: 0.85 });
}

const v3 = modelShape(resolveConfig("deepseek-v3").model);

function moeLayer(settings: Partial<LayoutInput>, name = "moe.act"): number {
  const layout = completeLayout({ globalBatchSize: 1024, seqLen: 4096, ep: 64, pp: 16, ...settings }, 1024);
  return evaluatorOf(v3, 1024).explain(layout, name).value / 2 ** 20;
}

test("a MoE layer of V3 keeps 2,236 MiB of 4,096 tokens, tensor by tensor", () => {
  const layout = completeLayout({ globalBatchSize: 1024, seqLen: 4096, ep: 64, pp: 16 }, 1024);
  const { inputs } = evaluatorOf(v3, 1024).explain(layout, "moe.act");
  expect(inputs.map(({ name, value }) => [name.slice("moe.act.".length), value / 2 ** 20])).toEqual([
    ["input", 56],
    ["norm", 56],
    ["q_down", 12],
    ["q_norm", 12],
    ["kv_down", 4],
    ["kv_norm", 4],
    ["q", 192],
    ["k", 192],
    ["v", 128],
    ["attention_out", 128],
    ["log_sum_exp", 2],
    ["residual", 56],
    ["ffn_norm", 56],
    ["router_probs", 2],
    ["row_map", 8],
    ["shared_gate_up", 32],
    ["shared_product", 16],
    ["routed_in", 448],
    ["routed_gate_up", 256],
    ["routed_product", 128],
    ["routed_out", 448],
  ]);
  expect(moeLayer({})).toBe(2236);
});

test("the fp8 recipe keeps inputs of linear layers in fp8, attention's output in E5M6, no expert's output", () => {
  const layout = completeLayout(
    { globalBatchSize: 1024, seqLen: 4096, ep: 64, pp: 16, schedule: "dualpipe", recompute: "selective" },
    1024,
  );
  const evaluator = evaluatorOf(v3, 1024, "fp8");
  const mib = (name: string): number => evaluator.explain(layout, name).value / 2 ** 20;
  expect([mib("moe.act.routed_in"), mib("moe.act.routed_out")]).toEqual([(448 / 2) * (1 + 4 / 128), 0]);
  expect(mib("moe.act.attention_out")).toBe((128 / 2) * (1.5 + 1 / 128));
  expect([mib("moe.act.q"), mib("moe.act.residual"), mib("moe.act.made")]).toEqual([192, 56, 2236]);
  const live = evaluator.stages(layout).map((stage) => stage.live.reduce((sum, n) => sum + n, 0) / 4);
  expect(Math.max(...live)).toBe(17);
});

test("recomputation keeps 56 MiB in full, 492 MiB with the first 80 % of the layers", () => {
  expect(moeLayer({ recompute: "full" }, "moe.act.kept")).toBe(56);
  expect(moeLayer({ recompute: "first-80" }, "moe.act.kept")).toBeCloseTo(492, 9);
  const cheap = 56 + 12 + 4 + 192 + 192 + 128 + 56 + 16 + 128;
  expect(moeLayer({ recompute: "selective" }, "moe.act.kept")).toBe(2236 - cheap);
  expect(moeLayer({ recompute: "full" }, "moe.act.working")).toBe(2236 - 56);
});

test("tensor parallelism divides everything with sequence parallelism, and only widths without", () => {
  expect(moeLayer({ tp: 4 })).toBe(2236 / 4);
  const widths = 192 + 192 + 128 + 128 + 2 + 32 + 16;
  expect(moeLayer({ tp: 4, sequenceParallel: false })).toBe(2236 - widths + widths / 4);
});

test("expert tensor parallelism gathers the routed tokens and cuts the experts' width", () => {
  const routed = 448 + 448;
  const cut = 256 + 128;
  expect(moeLayer({ tp: 4, etp: 4, ep: 16 })).toBe((2236 - routed - cut) / 4 + routed + cut / 4);
});

/** Korthikanti et al. 2022, equations 1, 2, 4 and 6: bytes of a layer in units of tokens · width. */
test("a GPT layer keeps 34 + 5·a·s/h bytes for each token and channel", () => {
  const [dim, heads, seq] = [12_288, 96, 2048];
  const kind: LayerKind = {
    name: "dense",
    attention: { kind: "unfused", nHeads: heads, nKvHeads: heads, headDim: dim / heads },
    ffn: { kind: "gelu", width: 4 * dim },
    parameters: [],
  };
  const gpt: ModelShape = {
    ...v3,
    ...{ nLayers: 8, nHeads: heads, ffnWidths: [4 * dim], nRoutedExperts: 0, dim, nMtpLayers: 0 },
    ...{ kinds: [kind], layers: Array.from({ length: 8 }, () => 0), front: [], back: [] },
  };
  const perChannel = (settings: Partial<LayoutInput>): number => {
    const layout = completeLayout({ globalBatchSize: 8, seqLen: seq, ...settings }, 8);
    return evaluatorOf(gpt, 8).explain(layout, "dense.act.kept").value / (seq * dim);
  };
  const scores = (5 * heads * seq) / dim;
  expect(perChannel({})).toBeCloseTo(34 + scores, 10);
  expect(perChannel({ tp: 8, sequenceParallel: false })).toBeCloseTo(10 + 24 / 8 + scores / 8, 10);
  expect(perChannel({ tp: 8 })).toBeCloseTo((34 + scores) / 8, 10);
  expect(perChannel({ tp: 8, recompute: "selective" })).toBeCloseTo(34 / 8, 10);
  expect(perChannel({ tp: 8, sequenceParallel: false, recompute: "full" })).toBe(2);
});
