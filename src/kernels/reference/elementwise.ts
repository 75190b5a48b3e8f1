/** Kernels that treat every element alike, sums, and moves of rows. */

import { philox4x32 } from "../../core/rng.ts";
import { spanOf, type Call } from "./call.ts";

/** y = value */
export function fill(call: Call<"fill">): void {
  call.floats("y", call.count("n")).fill(call.number("value"));
}

/** y[r, c] (+)= x[r, c] */
export function copy2d(call: Call<"copy2d">): void {
  const rows = call.count("rows");
  const cols = call.count("cols");
  const xStride = call.count("xStride");
  const yStride = call.count("yStride");
  const accumulate = call.flag("accumulate");
  const x = call.floats("x", spanOf(rows, cols, xStride));
  const y = call.floats("y", spanOf(rows, cols, yStride));
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const at = r * yStride + c;
      y[at] = (accumulate ? y[at]! : 0) + x[r * xStride + c]!;
    }
  }
}

/** y = a + b */
export function add(call: Call<"add">): void {
  const n = call.count("n");
  const a = call.floats("a", n);
  const b = call.floats("b", n);
  const y = call.floats("y", n);
  for (let i = 0; i < n; i++) y[i] = a[i]! + b[i]!;
}

/** y += scale · x */
export function axpy(call: Call<"axpy">): void {
  const n = call.count("n");
  const scale = call.number("scale");
  const x = call.floats("x", n);
  const y = call.floats("y", n);
  for (let i = 0; i < n; i++) y[i] = y[i]! + scale * x[i]!;
}

/** y[0] (+)= scale · Σ x */
export function sum(call: Call<"sum">): void {
  const n = call.count("n");
  const x = call.floats("x", n);
  const y = call.floats("y", 1);
  let total = 0;
  for (let i = 0; i < n; i++) total += x[i]!;
  y[0] = (call.flag("accumulate") ? y[0]! : 0) + call.number("scale") * total;
}

/** y[0] = Σ x² */
export function sumSquares(call: Call<"sumSquares">): void {
  const n = call.count("n");
  const x = call.floats("x", n);
  const y = call.floats("y", 1);
  let total = 0;
  for (let i = 0; i < n; i++) total += x[i]! * x[i]!;
  y[0] = total;
}

/** y[r, :] = x[index[r], :] */
export function gatherRows(call: Call<"gatherRows">): void {
  const rows = call.count("rows");
  const d = call.count("d");
  const xRows = call.count("xRows");
  const x = call.floats("x", xRows * d);
  const index = call.indices("index", rows, xRows);
  const y = call.floats("y", rows * d);
  for (let r = 0; r < rows; r++) y.set(x.subarray(index[r]! * d, (index[r]! + 1) * d), r * d);
}

/** y[n, :] = table[ids[n], :] */
export function embedding(call: Call<"embedding">): void {
  const n = call.count("n");
  const d = call.count("d");
  const vocab = call.count("vocab");
  const ids = call.indices("ids", n, vocab);
  const table = call.weights("table", "scale", { length: vocab * d, width: d, columns: d });
  const y = call.floats("y", n * d);
  for (let r = 0; r < n; r++) y.set(table(ids[r]! * d, d), r * d);
}

/** dTable[ids[n], :] (+)= dy[n, :] */
export function embeddingBackward(call: Call<"embeddingBackward">): void {
  const n = call.count("n");
  const d = call.count("d");
  const vocab = call.count("vocab");
  const ids = call.indices("ids", n, vocab);
  const dy = call.floats("dy", n * d);
  const dTable = call.floats("dTable", vocab * d);
  const total = call.flag("accumulate") ? Float64Array.from(dTable) : new Float64Array(vocab * d);
  for (let r = 0; r < n; r++) {
    for (let c = 0; c < d; c++) total[ids[r]! * d + c]! += dy[r * d + c]!;
  }
  dTable.set(total);
}

/**
 * Standard normal numbers times std, four from each Philox block.
 * Source: Box & Muller 1958.
 */
export function randomNormal(call: Call<"randomNormal">): void {
  const n = call.count("n");
  const std = call.number("std");
  const key = [call.count("keyLo"), call.count("keyHi")] as const;
  const y = call.floats("y", n);
  for (let i = 0; i < n; i += 2) {
    const words = philox4x32([Math.floor(i / 4), 0, 0, 0], key);
    const u0 = (words[i % 4]! + 0.5) / 2 ** 32;
    const u1 = (words[(i % 4) + 1]! + 0.5) / 2 ** 32;
    const radius = Math.sqrt(-2 * Math.log(u0));
    y[i] = std * radius * Math.cos(2 * Math.PI * u1);
    if (i + 1 < n) y[i + 1] = std * radius * Math.sin(2 * Math.PI * u1);
  }
}

/** silu(g) = g / (1 + e^−g). Source: Shazeer 2020, "GLU variants improve transformer" (SwiGLU). */
const silu = (g: number): number => g / (1 + Math.exp(-g));

/** y = silu(gate) · up · (scale[row] when given) */
export function siluMul(call: Call<"siluMul">): void {
  const n = call.count("n");
  const d = call.count("d");
  const gate = call.floats("gate", n * d);
  const up = call.floats("up", n * d);
  const scale = call.optionalFloats("scale", n);
  const y = call.floats("y", n * d);
  for (let r = 0; r < n; r++) {
    const factor = scale === undefined ? 1 : scale[r]!;
    for (let i = r * d; i < (r + 1) * d; i++) y[i] = silu(gate[i]!) * up[i]! * factor;
  }
}

/** silu′(g) = σ(g) · (1 + g · (1 − σ(g))) */
export function siluMulBackward(call: Call<"siluMulBackward">): void {
  const n = call.count("n");
  const d = call.count("d");
  const gate = call.floats("gate", n * d);
  const up = call.floats("up", n * d);
  const scale = call.optionalFloats("scale", n);
  const dy = call.floats("dy", n * d);
  const dGate = call.floats("dGate", n * d);
  const dUp = call.floats("dUp", n * d);
  const dScale = call.optionalFloats("dScale", n);
  for (let r = 0; r < n; r++) {
    const factor = scale === undefined ? 1 : scale[r]!;
    let total = 0;
    for (let i = r * d; i < (r + 1) * d; i++) {
      const g = gate[i]!;
      const u = up[i]!;
      const sigmoid = 1 / (1 + Math.exp(-g));
      const gradient = dy[i]! * factor;
      total += dy[i]! * g * sigmoid * u;
      dGate[i] = gradient * u * sigmoid * (1 + g * (1 - sigmoid));
      dUp[i] = gradient * g * sigmoid;
    }
    if (dScale !== undefined) dScale[r] = total;
  }
}
