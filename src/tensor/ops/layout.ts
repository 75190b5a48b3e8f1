/** Cutting rows into column ranges and joining them again, by copying. */

import { ShapeError } from "../../core/errors.ts";
import { apply, valueOf, type OpRow } from "../op.ts";
import type { Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";

/** Copies `cols` columns of every row of x, from column xAt, to column yAt of y. */
function copyColumns(
  scope: Scope,
  x: Tensor,
  y: Tensor,
  cols: number,
  at: { x?: number; y?: number; accumulate?: number },
): void {
  const { x: xAt = 0, y: yAt = 0, accumulate = 0 } = at;
  scope.run(
    "copy2d",
    {
      x: { handle: x.handle, offset: x.offset + xAt, dtype: x.dtype },
      y: { handle: y.handle, offset: y.offset + yAt, dtype: y.dtype },
    },
    { rows: x.rows, cols, xStride: x.columns, yStride: y.columns, accumulate },
  );
}

function starts(widths: readonly number[]): number[] {
  return widths.map((_, i) => widths.slice(0, i).reduce((sum, width) => sum + width, 0));
}

const splitRow: OpRow<readonly number[]> = {
  name: "split",
  source: "[y1 ‖ y2 ‖ …] = x",
  outputs: ([x], widths) => {
    const { columns, rows } = valueOf(x);
    if (widths.reduce((sum, width) => sum + width, 0) !== columns) {
      throw new ShapeError("split", `widths that sum to ${columns}`, widths);
    }
    return widths.map((width) => ({ shape: [rows, width] }));
  },
  forward: ({ scope, inputs: [x], outputs, attrs: widths }) => {
    for (const [i, at] of starts(widths).entries()) copyColumns(scope, valueOf(x), outputs[i]!, widths[i]!, { x: at });
  },
  backward: (call) => {
    const dx = call.into(0)!;
    for (const [i, at] of starts(call.attrs).entries()) {
      const dy = call.grad(i);
      const width = call.attrs[i]!;
      if (dy !== null) copyColumns(call.scope, dy, dx.tensor, width, { y: at, accumulate: dx.accumulate });
      else if (dx.accumulate === 0) clearColumns(call.scope, dx.tensor, at, width);
    }
  },
  saves: { inputs: [], outputs: [] },
  flops: () => ({ forward: 0, backward: 0 }),
};

/** A part that no gradient reached counts as zero. */
function clearColumns(scope: Scope, y: Tensor, at: number, width: number): void {
  using inner = scope.child();
  const zeros = inner.empty([y.rows, width], y.dtype);
  inner.run("fill", { y: zeros }, { n: zeros.size, value: 0 });
  copyColumns(inner, zeros, y, width, { y: at });
}

/** Cuts the columns of x [n, Σ widths] into tensors of the given widths. */
export function split(scope: Scope, x: Tensor, widths: readonly number[]): readonly Tensor[] {
  return apply(splitRow, scope, [x], widths);
}

const concatRow: OpRow<null> = {
  name: "concat",
  source: "y = [a ‖ b]",
  outputs: ([a, b]) => {
    const { rows, columns } = valueOf(a);
    if (valueOf(b).rows !== rows) throw new ShapeError("concat", `operands of ${rows} rows`, valueOf(b).shape);
    return [{ shape: [rows, columns + valueOf(b).columns] }];
  },
  forward: ({ scope, inputs, outputs: [y] }) => {
    const [a, b] = inputs.map(valueOf);
    copyColumns(scope, a!, y!, a!.columns, {});
    copyColumns(scope, b!, y!, b!.columns, { y: a!.columns });
  },
  backward: (call) => {
    const dy = call.grad(0)!;
    const width = valueOf(call.inputs[0]).columns;
    for (const [i, at] of [0, width].entries()) {
      const dx = call.into(i);
      if (dx === null) continue;
      copyColumns(call.scope, dy, dx.tensor, dx.tensor.columns, { x: at, accumulate: dx.accumulate });
    }
  },
  saves: { inputs: [], outputs: [] },
  flops: () => ({ forward: 0, backward: 0 }),
};

/** [a ‖ b] along the last dimension. */
export function concat(scope: Scope, a: Tensor, b: Tensor): Tensor {
  return apply(concatRow, scope, [a, b], null)[0]!;
}
