import { ShapeError } from "../../core/errors.ts";
import { apply, valueOf, type OpRow } from "../op.ts";
import type { Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";

export interface RopeAttrs {
  readonly heads: number;
  readonly headDim: number;
  readonly ropeDim: number;
  /** Pairs (2i, 2i+1), DeepSeek's own layout; otherwise (i, i + ropeDim/2). */
  readonly interleave: boolean;
}

function numbers(attrs: RopeAttrs, n: number, maxPos: number): Parameters<typeof run>[3] {
  const stride = attrs.heads * attrs.headDim;
  return {
    n,
    heads: attrs.heads,
    headDim: attrs.headDim,
    ropeDim: attrs.ropeDim,
    xStride: stride,
    yStride: stride,
    maxPos,
    interleave: Number(attrs.interleave),
    inverse: 0,
    accumulate: 0,
  };
}

function run(
  scope: Scope,
  x: Tensor,
  io: { table: Tensor; positions: Tensor; y: Tensor },
  values: Record<
    "n" | "heads" | "headDim" | "ropeDim" | "xStride" | "yStride" | "maxPos" | "interleave" | "inverse" | "accumulate",
    number
  >,
): void {
  scope.run("rope", { x, ...io }, values);
}

const ropeRow: OpRow<RopeAttrs> = {
  name: "rope",
  source: "Su et al. 2021 (arXiv 2104.09864), eq. 34; layout of deepseek-ai/DeepSeek-V3 inference/model.py",
  outputs: ([x], { heads, headDim }) => {
    const { shape, columns } = valueOf(x);
    if (columns !== heads * headDim) throw new ShapeError("rope", `rows of ${heads} × ${headDim}`, shape);
    return [{ shape }];
  },
  forward: ({ scope, inputs, outputs: [y], attrs }) => {
    const [x, table, positions] = inputs.map(valueOf);
    run(scope, x!, { table: table!, positions: positions!, y: y! }, numbers(attrs, x!.rows, table!.rows));
  },
  backward: (call) => {
    const dx = call.into(0)!;
    const [, table, positions] = call.inputs.map(valueOf);
    const dy = call.grad(0)!;
    run(
      call.scope,
      dy,
      { table: table!, positions: positions!, y: dx.tensor },
      { ...numbers(call.attrs, dy.rows, table!.rows), inverse: 1, accumulate: dx.accumulate },
    );
  },
  saves: { inputs: [1, 2], outputs: [] },
  flops: ([x]) => ({ forward: 3 * valueOf(x).size, backward: 3 * valueOf(x).size }),
};

/** Rotates the last ropeDim values of each head of x [n, heads · headDim] by the angle of its position. */
export function rope(scope: Scope, x: Tensor, table: Tensor, positions: Tensor, attrs: RopeAttrs): Tensor {
  return apply(ropeRow, scope, [x, table, positions], attrs)[0]!;
}
