import { ShapeError } from "../../core/errors.ts";
import type { Parameter } from "../parameter.ts";
import { apply, valueOf, type Input, type OpRow } from "../op.ts";
import type { Compute, Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";

/** The number that stands for a precision in a kernel call. */
export function computeId(compute: Compute): number {
  return compute === "bf16" ? 1 : 0;
}

/** What a product reads: the bf16 copy when it multiplies in bf16 and there is one, else the values themselves. */
export function weightFor(weight: Parameter, compute: Compute): Tensor {
  return compute === "bf16" && weight.copy !== null ? weight.copy : weight.value;
}

interface Product {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transA?: boolean;
  readonly transB?: boolean;
  readonly accumulate?: number;
  readonly compute: Compute;
}

/** C (+)= opA(A) · opB(B) for contiguous matrices. See kernel `matmul`. */
export function matmulInto(scope: Scope, a: Tensor, b: Tensor, c: Tensor, product: Product): void {
  const { m, n, k, transA = false, transB = false, accumulate = 0, compute } = product;
  scope.run(
    "matmul",
    { a, b, c },
    {
      m,
      n,
      k,
      transA: Number(transA),
      transB: Number(transB),
      lda: transA ? m : k,
      ldb: transB ? k : n,
      ldc: n,
      batch: 1,
      strideA: 0,
      strideB: 0,
      strideC: 0,
      accumulate,
      compute: computeId(compute),
    },
  );
}

interface LinearAttrs {
  readonly weight: Parameter;
  readonly compute: Compute;
}

function dims(inputs: readonly Input[]): { n: number; outDim: number; inDim: number } {
  const x = valueOf(inputs[0]);
  const [outDim, inDim] = valueOf(inputs[1]).shape;
  if (inDim !== x.columns) throw new ShapeError("linear", `input with ${inDim} columns`, x.shape);
  return { n: x.rows, outDim: outDim!, inDim };
}

const linearRow: OpRow<LinearAttrs> = {
  name: "linear",
  source: "y = x Wᵀ",
  outputs: (inputs) => {
    const { outDim } = dims(inputs);
    return [{ shape: [...valueOf(inputs[0]).shape.slice(0, -1), outDim] }];
  },
  forward: ({ scope, inputs, outputs: [y], attrs: { weight, compute } }) => {
    const { n, outDim, inDim } = dims(inputs);
    const product = { m: n, n: outDim, k: inDim, transB: true, compute };
    matmulInto(scope, valueOf(inputs[0]), weightFor(weight, compute), y!, product);
  },
  backward: (call) => {
    const { n, outDim, inDim } = dims(call.inputs);
    const { weight, compute } = call.attrs;
    const dy = call.grad(0)!;
    const dw = call.into(1);
    if (dw !== null) {
      const product = { m: outDim, n: inDim, k: n, transA: true, accumulate: dw.accumulate, compute };
      matmulInto(call.scope, dy, valueOf(call.inputs[0]), dw.tensor, product);
    }
    const dx = call.into(0);
    if (dx !== null) {
      const product = { m: n, n: inDim, k: outDim, accumulate: dx.accumulate, compute };
      matmulInto(call.scope, dy, weightFor(weight, compute), dx.tensor, product);
    }
  },
  saves: { inputs: [0], outputs: [] },
  flops: (inputs) => {
    const { n, outDim, inDim } = dims(inputs);
    return { forward: 2 * n * outDim * inDim, backward: 4 * n * outDim * inDim };
  },
};

/** y = x Wᵀ for x [..., in] and W [out, in], in the scope's precision unless `compute` says otherwise. */
export function linear(scope: Scope, x: Tensor, weight: Parameter, compute: Compute = scope.compute): Tensor {
  return apply(linearRow, scope, [x, weight], { weight, compute })[0]!;
}
