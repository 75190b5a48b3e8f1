import { describe, expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { device } from "./devices.ts";
import { efficiencyFor } from "./efficiency.ts";
import { precisionRecipe } from "./precision.ts";
import { searchLayouts, type SearchCounts, type SearchSettings } from "./search.ts";
import { modelShape } from "./shape.ts";
import { createTrainingEvaluator, type TrainingEvaluator } from "./training.ts";

function evaluatorOf(model: string, deviceName: string, count: number, margin = 0.85): TrainingEvaluator {
  const cluster = { device: device(deviceName), count };
  const efficiency = efficiencyFor({ cluster, format: "bf16", family: "moe" });
  const shape = modelShape(resolveConfig(model).model);
  return createTrainingEvaluator({ shape, recipe: precisionRecipe("bf16"), cluster, efficiency, margin });
}

function accounted({ illegal, cutByMemory, cutByTime, tooLarge, slower }: SearchCounts): number {
  const identities = Object.values(illegal).reduce((sum, n) => sum + n, 0);
  return identities + cutByMemory + cutByTime + tooLarge + slower;
}

describe("on 64 devices the bounds cut only what cannot win", () => {
  const cases: [string, TrainingEvaluator, Omit<SearchSettings, "world">][] = [
    ["V2-Lite", evaluatorOf("deepseek-v2-lite", "h800", 64), { globalBatchSize: 512, seqLen: 4096 }],
    ["V2-Lite in little memory", evaluatorOf("deepseek-v2-lite", "v100", 64), { globalBatchSize: 64, seqLen: 4096 }],
    ["V2, which hardly fits", evaluatorOf("deepseek-v2", "h200", 64, 0.9), { globalBatchSize: 256, seqLen: 4096 }],
    [
      "V2-Lite with zero-bubble pipelines",
      evaluatorOf("deepseek-v2-lite", "a100", 64),
      { globalBatchSize: 512, seqLen: 2048, schedule: "zb1p" },
    ],
  ];
  test.each(cases)("%s", (_, evaluator, settings) => {
    const exhaustive = searchLayouts(evaluator, { ...settings, world: 64, prune: false });
    const pruned = searchLayouts(evaluator, { ...settings, world: 64 });
    expect(pruned.best).toEqual(exhaustive.best);
    expect(pruned.best.length).toBeGreaterThan(0);
    for (const { counts, best } of [exhaustive, pruned]) {
      expect(accounted(counts) + best.length).toBe(counts.grid);
      expect(counts.grid).toBe(5 * 6 * 4 * 5 * 9 * 4 * 4 * 5 * 4);
    }
    expect(exhaustive.counts.cutByMemory + exhaustive.counts.cutByTime).toBe(0);
    expect(pruned.counts.cutByMemory + pruned.counts.cutByTime).toBeGreaterThan(0);
  });
}, 120_000);

test("when nothing fits, the layout nearest to fitting is told with and without bounds", () => {
  const evaluator = evaluatorOf("deepseek-v3", "l4", 8);
  const settings = { world: 8, globalBatchSize: 64, seqLen: 4096 };
  const pruned = searchLayouts(evaluator, settings);
  expect(pruned.best).toEqual([]);
  expect(pruned.nearest?.memoryBytes).toBe(
    searchLayouts(evaluator, { ...settings, prune: false }).nearest?.memoryBytes,
  );
});
