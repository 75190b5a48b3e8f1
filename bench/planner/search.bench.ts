/**
 * The planner's search: DeepSeek-V3 on 2,048 H800, with bounds and without, and layouts evaluated per second.
 *
 *     npx tsx bench/planner/search.bench.ts [--rounds 5]
 *
 * With bounds it is measured `rounds` times, without them once. Appends one JSON line to bench/results/plan-search.jsonl.
 */

import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { resolveConfig } from "../../src/config/index.ts";
import {
  createTrainingEvaluator,
  ASSUMED,
  device,
  efficiencyFor,
  modelShape,
  precisionRecipe,
  searchLayouts,
} from "../../src/planner/index.ts";
import { median } from "../peer.ts";
import { appendResult } from "../result-file.ts";

const { values: flags } = parseArgs({ options: { rounds: { type: "string", default: "5" } } });
const world = 2048;
const load = loadavg()[0]!;

const { model, training } = resolveConfig("deepseek-v3");
const cluster = { device: device("h800"), count: world };
const evaluator = createTrainingEvaluator({
  shape: modelShape(model),
  recipe: precisionRecipe("fp8"),
  cluster,
  efficiency: efficiencyFor({ cluster, format: "fp8", family: "moe" }),
  margin: ASSUMED.memoryMargin,
});

function timed(prune: boolean): { seconds: number; evaluated: number } {
  const start = performance.now();
  const { counts, best } = searchLayouts(evaluator, {
    ...{ world, prune },
    globalBatchSize: training.batchSize,
    seqLen: training.seqLen,
  });
  return { seconds: (performance.now() - start) / 1e3, evaluated: counts.tooLarge + counts.slower + best.length };
}

const pruned = Array.from({ length: Number(flags.rounds) }, () => timed(true).seconds);
const exhaustive = timed(false);
const result = {
  pruned_seconds: { median: median(pruned), min: Math.min(...pruned) },
  exhaustive_seconds: exhaustive.seconds,
  exhaustive_layouts: exhaustive.evaluated,
  layouts_per_second: exhaustive.evaluated / exhaustive.seconds,
  load_average: load,
};
console.log(result);
appendResult("plan-search", result);
