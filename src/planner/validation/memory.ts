/** Published memory against the planner's: states and activations of four GPTs, V3 on 1,024 devices, FSDP of LLaMA. */

import { invariant } from "../../core/errors.ts";
import { device } from "../devices.ts";
import { completeLayout, type Layout } from "../layout.ts";
import { precisionRecipe } from "../precision.ts";
import type { ModelShape } from "../shape.ts";
import { createTrainingEvaluator, type TrainingEvaluator } from "../training.ts";
import type { CheckedRow } from "./accounting.ts";
import { layersOnly, publishedShape } from "./models.ts";
import { PUBLISHED_RUNS, type PublishedRun } from "./published-runs.ts";

const GIB = 2 ** 30;
const BAR = 0.03;
const DIFFERENCE_BAR = 0.1;
const STATES = ["memory.weights", "memory.gradients", "memory.master", "memory.moments"] as const;

export function memoryRows(): CheckedRow[] {
  return [...k22Rows(), ...v3Rows(), ...torchtitanRows()];
}

function evaluatorOf(
  shape: ModelShape,
  name: string,
  count: number,
  recipe = precisionRecipe("bf16"),
): TrainingEvaluator {
  return createTrainingEvaluator({
    shape,
    recipe,
    cluster: { device: device(name), count },
    efficiency: { computeShare: 1, hiddenShare: 1, basis: "times are not read", calibrated: false },
    margin: 1,
  });
}

/** GiB of some parts of memory on one pipeline rank. */
function stageGib(evaluator: TrainingEvaluator, layout: Layout, index: number, names: readonly string[]): number {
  const stage = evaluator.stages(layout)[index];
  invariant(stage !== undefined, `the layout has a stage ${index}`);
  return evaluator.read(layout, stage, names).reduce((sum, bytes) => sum + bytes, 0) / GIB;
}

/** States, activations with nothing recomputed and no sequence parallelism, and with both; GiB. */
const K22: Readonly<Record<string, readonly [number, number, number]>> = {
  "gpt-22b": [45.56, 59.25, 9.56],
  "gpt-175b": [45.56, 66.84, 12.35],
  "gpt-530b": [31.64, 114.0, 23.08],
  "gpt-1t": [32.96, 131.25, 26.56],
};

function k22Rows(): CheckedRow[] {
  return Object.entries(K22).flatMap(([model, [states, baseline, present]]) => {
    const run = PUBLISHED_RUNS.find((row) => row.model === model);
    invariant(run !== undefined, `${model} has a run`);
    const evaluator = evaluatorOf(layersOnly(publishedShape(model)), run.device, run.count);
    const gib = (names: readonly string[], changes: Partial<Layout>): number =>
      stageGib(evaluator, { ...layoutOf(run), ...changes }, 0, names);
    const row = (what: string, published: number, predicted: number): CheckedRow => ({
      ...{ id: `K22 ${model}`, what, unit: "GiB", published, predicted, bar: BAR },
      inputs: `${run.count} A100, TP8 PP${layoutOf(run).pp} VP${layoutOf(run).vp}, s 2048, 18 bytes a parameter, layers alone`,
      source: "Korthikanti et al. 2022; values as in calculon's validation set",
    });
    return [
      row("weights and states", states, gib(STATES, {})),
      row(
        "activations, TP alone",
        baseline,
        gib(["memory.activations"], { recompute: "none", sequenceParallel: false }),
      ),
      row(
        "activations, SP and selective",
        present,
        gib(["memory.activations"], { recompute: "selective", sequenceParallel: true }),
      ),
    ];
  });
}

function layoutOf({ layout, count }: PublishedRun): Layout {
  invariant(layout !== undefined, "the run has a layout");
  return completeLayout(layout, count);
}

function v3Rows(): CheckedRow[] {
  const count = 1024;
  const layout = completeLayout({ pp: 16, ep: 64, globalBatchSize: 8192, seqLen: 4096 }, count);
  const evaluator = evaluatorOf(publishedShape("deepseek-v3"), "h100", count);
  const row = (what: string, published: number, names: readonly string[]): CheckedRow => ({
    ...{ id: "G17", what, unit: "GiB", published, predicted: stageGib(evaluator, layout, 1, names), bar: BAR },
    inputs: "1,024 devices, PP16 EP64 TP1, ZeRO-1, s 4096, micro-batch 1, second stage: 4 MoE layers, 15 in flight",
    source: "yanring/Megatron-MoE-ModelZoo, memory estimator (its GB are GiB)",
  });
  return [row("weights and states", 17.14, STATES), row("activations", 131, ["memory.activations"])];
}

const TITAN_PEAKS = [
  ["eager", 82.4, 67.0],
  ["compiled", 77.0, 62.0],
  ["compiled fp8", 76.8, 61.8],
] as const;

/** What leaves a device when 8 become 128: shards of float32 weights, gradients and moments. */
function torchtitanRows(): CheckedRow[] {
  const recipe = { ...precisionRecipe("fp32"), compute: "bf16" as const };
  const gib = (count: number): number => {
    const layout = completeLayout({ zero: 3, microBatchSize: 2, globalBatchSize: 2 * count, seqLen: 8192 }, count);
    return stageGib(evaluatorOf(publishedShape("llama3-8b"), "h100-96gb", count, recipe), layout, 0, STATES);
  };
  const predicted = gib(8) - gib(128);
  return TITAN_PEAKS.map(([variant, eight, many]) => ({
    ...{ id: "G13", what: `8B ${variant}, 8 devices less 128`, unit: "GiB", published: eight - many, predicted },
    bar: DIFFERENCE_BAR,
    inputs: "FSDP2 over all, float32 weights, gradients and moments (16 bytes), local batch 2, s 8192",
    source: "torchtitan benchmarks/llama3_h100_202412_torchtitan.md, peak memory",
  }));
}
