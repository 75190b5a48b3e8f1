import { ShapeError } from "../../core/errors.ts";
import type { Parameter } from "../parameter.ts";
import { apply, valueOf, type OpRow } from "../op.ts";
import type { Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";

const rmsNormRow: OpRow<{ eps: number }> = {
  name: "rmsNorm",
  source: "Zhang & Sennrich 2019 (arXiv 1910.07467), eq. 4",
  outputs: ([x, w]) => {
    const { shape, columns } = valueOf(x);
    if (valueOf(w).size !== columns) throw new ShapeError("rmsNorm", `weight of ${columns} values`, valueOf(w).shape);
    return [{ shape }];
  },
  extras: ([x]) => [{ shape: [valueOf(x).rows] }],
  forward: ({ scope, inputs: [x, w], outputs: [y], extras: [rstd], attrs: { eps } }) => {
    const { rows: n, columns: d } = y!;
    scope.run("rmsNorm", { x: valueOf(x), w: valueOf(w), y: y!, rstd: rstd! }, { n, d, xStride: d, eps });
  },
  backward: (call) => {
    const [x, w] = call.inputs.map(valueOf);
    const { rows: n, columns: d } = x!;
    using scratch = call.scope.child();
    // The kernel always makes dx; where the input needs none it goes to scratch.
    const dx = call.into(0) ?? { tensor: scratch.empty([n, d], x!.dtype), accumulate: 0 };
    const dw = call.into(1);
    call.scope.run(
      "rmsNormBackward",
      { x: x!, w: w!, rstd: call.extras[0]!, dy: call.grad(0)!, dx: dx.tensor, dw: dw?.tensor },
      { n, d, xStride: d, dxStride: d, accumulateX: dx.accumulate, accumulateW: dw?.accumulate ?? 0 },
    );
  },
  saves: { inputs: [0], outputs: [] },
  flops: ([x]) => ({ forward: 4 * valueOf(x).size, backward: 8 * valueOf(x).size }),
};

/** x / √(mean x² + eps) · w over the last dimension. */
export function rmsNorm(scope: Scope, x: Tensor, weight: Parameter, eps: number): Tensor {
  return apply(rmsNormRow, scope, [x, weight], { eps })[0]!;
}
