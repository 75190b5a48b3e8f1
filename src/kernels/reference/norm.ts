/** RMSNorm. Source: Zhang & Sennrich 2019, equation 4. */

import { spanOf, type Call } from "./call.ts";

/** y = x · rstd · w, rstd[n] = 1 / √(mean x² + eps) */
export function rmsNorm(call: Call<"rmsNorm">): void {
  const n = call.count("n");
  const d = call.count("d");
  const xStride = call.count("xStride");
  const x = call.floats("x", spanOf(n, d, xStride));
  const w = call.floats("w", d);
  const y = call.floats("y", n * d);
  const rstd = call.floats("rstd", n);
  for (let r = 0; r < n; r++) {
    let squares = 0;
    for (let c = 0; c < d; c++) squares += x[r * xStride + c]! ** 2;
    const scale = 1 / Math.sqrt(squares / d + call.number("eps"));
    rstd[r] = scale;
    for (let c = 0; c < d; c++) y[r * d + c] = x[r * xStride + c]! * scale * w[c]!;
  }
}

/**
 * dx = rstd · (w·dy − x · rstd² · mean(w·dy·x)), dw = Σ_n dy · x · rstd, since ∂rstd/∂x_c = −rstd³ · x_c / d.
 */
export function rmsNormBackward(call: Call<"rmsNormBackward">): void {
  const n = call.count("n");
  const d = call.count("d");
  const xStride = call.count("xStride");
  const dxStride = call.count("dxStride");
  const accumulateX = call.flag("accumulateX");
  const x = call.floats("x", spanOf(n, d, xStride));
  const w = call.floats("w", d);
  const rstd = call.floats("rstd", n);
  const dy = call.floats("dy", n * d);
  const dx = call.floats("dx", spanOf(n, d, dxStride));
  const dw = call.optionalFloats("dw", d);
  const totalW = dw !== undefined && call.flag("accumulateW") ? Float64Array.from(dw) : new Float64Array(d);
  for (let r = 0; r < n; r++) {
    const scale = rstd[r]!;
    let dot = 0;
    for (let c = 0; c < d; c++) dot += w[c]! * dy[r * d + c]! * x[r * xStride + c]!;
    const pull = (dot / d) * scale * scale;
    for (let c = 0; c < d; c++) {
      const xValue = x[r * xStride + c]!;
      const dyValue = dy[r * d + c]!;
      const at = r * dxStride + c;
      totalW[c]! += dyValue * xValue * scale;
      dx[at] = (accumulateX ? dx[at]! : 0) + scale * (w[c]! * dyValue - xValue * pull);
    }
  }
  dw?.set(totalW);
}
