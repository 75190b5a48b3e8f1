import { ShapeError } from "../../core/errors.ts";
import { apply, valueOf, type OpRow } from "../op.ts";
import type { Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";

const addRow: OpRow<null> = {
  name: "add",
  source: "y = a + b",
  outputs: ([a, b]) => {
    const { shape, size } = valueOf(a);
    if (size !== valueOf(b).size) throw new ShapeError("add", `operands of ${size} elements`, valueOf(b).shape);
    return [{ shape }];
  },
  forward: ({ scope, inputs: [a, b], outputs: [y] }) =>
    scope.run("add", { a: valueOf(a), b: valueOf(b), y: y! }, { n: y!.size }),
  backward: (call) => {
    const dy = call.grad(0)!;
    call.pass(0, dy);
    call.pass(1, dy);
  },
  saves: { inputs: [], outputs: [] },
  flops: ([a]) => ({ forward: valueOf(a).size, backward: valueOf(a).size }),
};

/** a + b, elementwise. */
export function add(scope: Scope, a: Tensor, b: Tensor): Tensor {
  return apply(addRow, scope, [a, b], null)[0]!;
}

const siluMulRow: OpRow<null> = {
  name: "siluMul",
  source: "SwiGLU without its projections, Shazeer 2020 (arXiv 2002.05202), eq. 6",
  outputs: ([gate, up]) => {
    const { shape, size } = valueOf(gate);
    if (size !== valueOf(up).size) throw new ShapeError("siluMul", `operands of ${size} elements`, valueOf(up).shape);
    return [{ shape }];
  },
  forward: ({ scope, inputs: [gate, up], outputs: [y] }) =>
    scope.run("siluMul", { gate: valueOf(gate), up: valueOf(up), y: y! }, { n: y!.rows, d: y!.columns }),
  backward: (call) => {
    const [gate, up] = call.inputs.map(valueOf);
    call.scope.run(
      "siluMulBackward",
      { gate: gate!, up: up!, dy: call.grad(0)!, dGate: call.whole(0), dUp: call.whole(1) },
      { n: gate!.rows, d: gate!.columns },
    );
  },
  saves: { inputs: [0, 1], outputs: [] },
  flops: ([gate]) => ({ forward: 6 * valueOf(gate).size, backward: 12 * valueOf(gate).size }),
};

/** silu(gate) · up, elementwise. Each operand must have no other reader. */
export function siluMul(scope: Scope, gate: Tensor, up: Tensor): Tensor {
  return apply(siluMulRow, scope, [gate, up], null)[0]!;
}
