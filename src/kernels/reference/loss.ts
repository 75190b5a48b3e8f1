/** Next-token loss. */

import { invariant } from "../../core/errors.ts";
import type { Call } from "./call.ts";

/**
 * losses[r] = log Σ_v exp(logits[r, v]) − logits[r, target]; dLogits = scale · (softmax − onehot). A row is read whole
 * before it is written, so dLogits may lie where logits do.
 */
export function softmaxCrossEntropy(call: Call<"softmaxCrossEntropy">): void {
  const rows = call.count("rows");
  const vocab = call.count("vocab");
  const scale = call.number("scale");
  const logits = call.floats("logits", rows * vocab);
  const targets = call.ints("targets", rows);
  const losses = call.floats("losses", rows);
  const dLogits = call.optionalFloats("dLogits", rows * vocab);
  for (let r = 0; r < rows; r++) {
    const target = targets[r]!;
    invariant(target < vocab, `softmaxCrossEntropy.targets lie below ${vocab}, got ${target}`);
    if (target < 0) {
      losses[r] = 0;
      dLogits?.fill(0, r * vocab, (r + 1) * vocab);
      continue;
    }
    const row = Float64Array.from(logits.subarray(r * vocab, (r + 1) * vocab));
    let max = -Infinity;
    for (const logit of row) max = Math.max(max, logit);
    let total = 0;
    for (const logit of row) total += Math.exp(logit - max);
    losses[r] = Math.log(total) + (max - row[target]!);
    if (dLogits === undefined) continue;
    for (let v = 0; v < vocab; v++) {
      const probability = Math.exp(row[v]! - max) / total;
      dLogits[r * vocab + v] = scale * (probability - (v === target ? 1 : 0));
    }
  }
}
