/** Which models run here; the others are described, counted, planned and converted. */

import type { ModelConfig } from "../config/index.ts";
import { UnsupportedError } from "../core/errors.ts";

const RUNS = [
  "DeepSeek LLM (model_type llama)",
  "DeepSeekMoE (deepseek)",
  "V2, V2-Lite, V2.5 and Coder-V2 (deepseek_v2)",
  "V3, R1 and V3.1 (deepseek_v3)",
];

/** What of a model no operation here carries out, or undefined. */
function missingPart(model: ModelConfig): string | undefined {
  if (model.architecture !== "decoder") return `architecture ${model.architecture}`;
  if (model.attention === "csa") return "attention csa of V4";
  if (model.indexNHeads > 0) return "the lightning indexer of V3.2";
  if (model.vision !== null) return `vision ${model.vision}`;
  if (model.windowSize > 0) return `window_size ${model.windowSize}`;
  return undefined;
}

/** @throws UnsupportedError for a model with parts that no operation here carries out. */
export function checkRunnable(model: ModelConfig): void {
  const missing = missingPart(model);
  if (missing === undefined) return;
  const cure = "its parameters can be counted, inspected and converted";
  throw new UnsupportedError("model", "must be one that runs here", missing, RUNS, cure);
}

/** @throws UnsupportedError for a score that no operation here computes. */
export function runnableScore({ scoreFunc }: ModelConfig): "softmax" | "sigmoid" {
  if (scoreFunc !== "sqrtsoftplus") return scoreFunc;
  throw new UnsupportedError("model.score_func", "must be a score that runs here", scoreFunc, ["softmax", "sigmoid"]);
}
