import { ShapeError } from "../../core/errors.ts";
import { Parameter } from "../parameter.ts";
import { apply, valueOf, type Call, type OpRow } from "../op.ts";
import type { Compute, Scope } from "../scope.ts";
import { inputOf, weightOperands, type Weight } from "../stored-matrix.ts";
import type { Tensor } from "../tensor.ts";
import { matmulInto } from "./linear.ts";

interface HeadLossAttrs {
  readonly weight: Weight;
  /** The gradient is that of scale · Σ losses. */
  readonly scale: number;
  readonly compute: Compute;
}

/** Logits held at a time, in values: 2^21 are 8 MiB of f32. */
const CHUNK_LOGITS = 2 ** 21;

function chunkRows(n: number, vocab: number): number {
  return Math.min(n, Math.max(32, Math.floor(CHUNK_LOGITS / vocab / 32) * 32));
}

/** The rows of one chunk: logits, losses, and with a tape the gradients of h and of the head. */
function lossChunk(call: Call<HeadLossAttrs>, logits: Tensor, from: number, dh: Tensor | null): void {
  const { scope, attrs } = call;
  const { weight, compute, scale } = attrs;
  const [h, targets] = [valueOf(call.inputs[0]), valueOf(call.inputs[2])];
  const [vocab, d] = weight.shape as [number, number];
  const rows = logits.rows;
  const hRows = h.view(from * d, [rows, d]);
  const head = weightOperands(weight, compute);
  matmulInto(scope, hRows, head, logits, { m: rows, n: vocab, k: d, transB: true, compute });
  const losses = call.outputs[0]!.view(from, [rows]);
  const dLogits = dh === null ? undefined : logits;
  scope.run(
    "softmaxCrossEntropy",
    { logits, targets: targets.view(from, [rows]), losses, dLogits },
    { rows, vocab, scale },
  );
  if (dh === null) return;
  const dRows = dh.view(from * d, [rows, d]);
  matmulInto(scope, logits, head, dRows, { m: rows, n: d, k: vocab, compute });
  if (!(weight instanceof Parameter && weight.trainable)) return;
  const { tensor, accumulate } = weight.gradTarget();
  const product = { m: vocab, n: d, k: rows, transA: true, accumulate: Number(accumulate), compute };
  matmulInto(scope, logits, hRows, tensor, product);
}

const headLossRow: OpRow<HeadLossAttrs> = {
  name: "headLoss",
  source:
    "cross-entropy of softmax(h Wᵀ), by chunks of rows; gradients are made on the way, as in Liger (arXiv 2410.10989)",
  outputs: ([h, , targets], { weight }) => {
    const { rows, columns } = valueOf(h);
    if (weight.shape[1] !== columns || valueOf(targets).size !== rows) {
      throw new ShapeError("headLoss", `head of ${columns} columns and ${rows} targets`, weight.shape);
    }
    return [{ shape: [rows] }];
  },
  extras: ([h]) => [{ shape: valueOf(h).shape }],
  forward: (call) => {
    const { scope, attrs } = call;
    const n = valueOf(call.inputs[0]).rows;
    const vocab = attrs.weight.shape[0]!;
    const rows = chunkRows(n, vocab);
    const dh = scope.tape === null ? null : call.extras[0]!;
    using scratch = scope.child();
    const workspace = scratch.empty([rows, vocab], valueOf(call.inputs[0]).dtype, "logits chunk");
    for (let from = 0; from < n; from += rows) {
      lossChunk(call, workspace.view(0, [Math.min(rows, n - from), vocab]), from, dh);
    }
  },
  backward: (call) => call.pass(0, call.extras[0]!),
  saves: { inputs: [], outputs: [] },
  flops: ([h], { weight }) => {
    const product = 2 * valueOf(h).size * weight.shape[0]!;
    return { forward: product, backward: 2 * product };
  },
};

/**
 * Losses [N] in nats of the head W [V, D] on h [N, D]; 0 where targets [N] (i32) are negative. A root of backward that
 * stands for scale · Σ losses. At most a chunk of logits exists at a time.
 */
export function headLoss(scope: Scope, h: Tensor, weight: Weight, targets: Tensor, scale: number): Tensor {
  return apply(headLossRow, scope, [h, inputOf(weight), targets], { weight, scale, compute: scope.compute })[0]!;
}
