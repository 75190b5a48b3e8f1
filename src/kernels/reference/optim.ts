/** Optimizer steps. */

import type { Call } from "./call.ts";

/** AdamW with decoupled decay. Source: Loshchilov & Hutter 2019, algorithm 2, as in torch.optim.AdamW. */
export function adamwInto(call: Call<"adamwInto">): void {
  const n = call.count("n");
  const [lr, weightDecay, eps] = [call.number("lr"), call.number("weightDecay"), call.number("eps")];
  const [beta1, beta2] = [call.number("beta1"), call.number("beta2")];
  const [correction1, correction2] = [call.number("correction1"), call.number("correction2")];
  const gradScale = call.number("gradScale");
  const p = call.floats("p", n);
  const g = call.floats("g", n);
  const m = call.floats("m", n);
  const v = call.floats("v", n);
  const copy = call.optionalFloats("copy", n);
  for (let i = 0; i < n; i++) {
    const gradient = gradScale * g[i]!;
    const mean = beta1 * m[i]! + (1 - beta1) * gradient;
    const square = beta2 * v[i]! + (1 - beta2) * gradient * gradient;
    const step = mean / correction1 / (Math.sqrt(square / correction2) + eps);
    m[i] = mean;
    v[i] = square;
    p[i] = p[i]! - lr * (step + weightDecay * p[i]!);
    if (copy !== undefined) copy[i] = p[i]!;
  }
}
