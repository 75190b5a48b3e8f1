import { ShapeError } from "../../core/errors.ts";
import { apply, valueOf, type Input, type OpRow } from "../op.ts";
import type { Compute, Scope } from "../scope.ts";
import { inputOf, weightOperands, type Weight, type WeightOperands } from "../stored-matrix.ts";
import { Tensor } from "../tensor.ts";

const COMPUTE_IDS = { f32: 0, bf16: 1, fp8: 2 } as const satisfies Record<Compute, number>;

/** The number that stands for a precision in a kernel call. */
export function computeId(compute: Compute): number {
  return COMPUTE_IDS[compute];
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
export function matmulInto(scope: Scope, a: Tensor, b: Tensor | WeightOperands, c: Tensor, product: Product): void {
  const { m, n, k, transA = false, transB = false, accumulate = 0, compute } = product;
  const right = b instanceof Tensor ? { weight: b, scale: undefined, numbers: {} } : b;
  scope.run(
    "matmul",
    { a, b: right.weight, c, bScale: right.scale },
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
      ...right.numbers,
    },
  );
}

interface LinearAttrs {
  readonly weight: Weight;
  readonly compute: Compute;
}

function dims(inputs: readonly Input[], { weight }: LinearAttrs): { n: number; outDim: number; inDim: number } {
  const x = valueOf(inputs[0]);
  const [outDim, inDim] = weight.shape;
  if (inDim !== x.columns) throw new ShapeError("linear", `input with ${inDim} columns`, x.shape);
  return { n: x.rows, outDim: outDim!, inDim };
}

const linearRow: OpRow<LinearAttrs> = {
  name: "linear",
  source: "y = x Wᵀ",
  outputs: (inputs, attrs) => {
    const { outDim } = dims(inputs, attrs);
    return [{ shape: [...valueOf(inputs[0]).shape.slice(0, -1), outDim] }];
  },
  forward: ({ scope, inputs, outputs: [y], attrs }) => {
    const { weight, compute } = attrs;
    const { n, outDim, inDim } = dims(inputs, attrs);
    const product = { m: n, n: outDim, k: inDim, transB: true, compute };
    matmulInto(scope, valueOf(inputs[0]), weightOperands(weight, compute), y!, product);
  },
  backward: (call) => {
    const { n, outDim, inDim } = dims(call.inputs, call.attrs);
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
      matmulInto(call.scope, dy, weightOperands(weight, compute), dx.tensor, product);
    }
  },
  saves: { inputs: [0], outputs: [] },
  flops: (inputs, attrs) => {
    const { n, outDim, inDim } = dims(inputs, attrs);
    return { forward: 2 * n * outDim * inDim, backward: 4 * n * outDim * inDim };
  },
};

/** y = x Wᵀ for x [..., in] and W [out, in], in the scope's precision unless `compute` says otherwise. */
export function linear(scope: Scope, x: Tensor, weight: Weight, compute: Compute = scope.compute): Tensor {
  return apply(linearRow, scope, [x, inputOf(weight)], { weight, compute })[0]!;
}
