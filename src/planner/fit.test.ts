import { expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { device } from "./devices.ts";
import { efficiencyFor } from "./efficiency.ts";
import { fitTraining, largestFit } from "./fit.ts";
import { completeLayout } from "./layout.ts";
import { precisionRecipe } from "./precision.ts";
import { modelShape } from "./shape.ts";
import { createTrainingEvaluator } from "./training.ts";

function evaluatorOf(model: string, memoryBytes: number) {
  const cluster = { device: { ...device("rtx-4090"), memoryBytes }, count: 1 };
  const efficiency = efficiencyFor({ cluster, format: "bf16", family: "moe" });
  const shape = modelShape(resolveConfig(model).model);
  return createTrainingEvaluator({ shape, recipe: precisionRecipe("bf16"), cluster, efficiency, margin: 0.85 });
}

const layout = completeLayout({ globalBatchSize: 1, seqLen: 256 }, 1);

test("the largest micro-batch fits and one more does not", () => {
  const evaluator = evaluatorOf("nano", 2 ** 30);
  const rows = fitTraining(evaluator, layout, [256, 1024]);
  expect(rows).toHaveLength(10);
  for (const { seqLen, recompute, microBatchSize, memoryBytes } of rows) {
    const memory = (size: number): number =>
      evaluator.evaluate({ ...layout, seqLen, recompute, microBatchSize: size, globalBatchSize: size }).memoryBytes;
    expect(microBatchSize).toBeGreaterThan(0);
    expect(memory(microBatchSize)).toBe(memoryBytes);
    expect(memory(microBatchSize)).toBeLessThanOrEqual(evaluator.limitBytes);
    expect(memory(microBatchSize + 1)).toBeGreaterThan(evaluator.limitBytes);
  }
  const most = Math.max(...rows.map((row) => row.seqLen * row.microBatchSize));
  const largest = largestFit(rows)!;
  expect(largest.seqLen * largest.microBatchSize).toBe(most);
});

test("a model whose states do not fit has no batch", () => {
  const rows = fitTraining(evaluatorOf("deepseek-v2-lite", 24 * 2 ** 30), layout, [512]);
  expect(rows.map(({ microBatchSize }) => microBatchSize)).toEqual([0, 0, 0, 0, 0]);
  expect(largestFit(rows)).toBeUndefined();
});
