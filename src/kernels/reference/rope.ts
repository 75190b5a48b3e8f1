/** Rotary position embedding. Source: Su et al. 2021, equation 34. */

import { spanOf, type Call } from "./call.ts";

/** (a, b) → (a·cos − b·sin, a·sin + b·cos) for each pair of the last ropeDim values of a head. */
export function rope(call: Call<"rope">): void {
  const [n, heads] = [call.count("n"), call.count("heads")];
  const [headDim, ropeDim] = [call.count("headDim"), call.count("ropeDim")];
  const [xStride, yStride] = [call.count("xStride"), call.count("yStride")];
  const maxPos = call.count("maxPos");
  const interleave = call.flag("interleave");
  const accumulate = call.flag("accumulate");
  const sign = call.flag("inverse") ? -1 : 1;
  const x = call.floats("x", spanOf(n, heads * headDim, xStride));
  const table = call.floats("table", maxPos * ropeDim);
  const positions = call.indices("positions", n, maxPos);
  const y = call.floats("y", spanOf(n, heads * headDim, yStride));
  const half = ropeDim / 2;
  const store = (at: number, value: number): void => {
    y[at] = (accumulate ? y[at]! : 0) + value;
  };
  for (let r = 0; r < n; r++) {
    const angles = positions[r]! * ropeDim;
    for (let h = 0; h < heads; h++) {
      const from = r * xStride + h * headDim;
      const to = r * yStride + h * headDim;
      const nope = headDim - ropeDim;
      for (let c = 0; c < nope; c++) store(to + c, x[from + c]!);
      for (let i = 0; i < half; i++) {
        const first = nope + (interleave ? 2 * i : i);
        const second = interleave ? first + 1 : first + half;
        const cos = table[angles + i]!;
        const sin = sign * table[angles + half + i]!;
        const a = x[from + first]!;
        const b = x[from + second]!;
        store(to + first, a * cos - b * sin);
        store(to + second, a * sin + b * cos);
      }
    }
  }
}
