import { expect, test } from "vitest";
import { Rng } from "../../core/rng.ts";
import { createReferenceBackend } from "../../kernels/index.ts";
import { Parameter, Scope, Tape, headLoss, type Tensor } from "../index.ts";

/** A vocabulary of which 2²¹ logits hold 32 rows: 40 rows make a chunk and a part of one. */
const [VOCAB, CHUNK, ROWS, D] = [2 ** 16, 32, 40, 2];

function randoms(name: string, size: number): Float64Array {
  const rng = new Rng(5, name);
  return Float64Array.from({ length: size }, () => 2 * rng.uniform() - 1);
}

interface Result {
  readonly losses: readonly number[];
  readonly headGradient: Float64Array;
  readonly peakBytes: number;
}

const valuesOf = (tensor: Tensor): Float64Array => new Float64Array(tensor.readBytes().slice().buffer);

/** Losses and the gradient of the head for rows [from, to) of one fixed input. */
function lossOf(from: number, to: number): Result {
  const backend = createReferenceBackend();
  using scope = Scope.root(backend, { dtype: "f64" });
  const head = new Parameter("head", scope.from(randoms("head", VOCAB * D), [VOCAB, D]));
  head.allocateGrad(scope);
  head.clearGrad();
  const h = scope.from(randoms("h", ROWS * D).subarray(from * D, to * D), [to - from, D]);
  const targets = Array.from({ length: to - from }, (_, i) => ((from + i) * 997) % VOCAB);
  const before = backend.stats().liveBytes;
  backend.resetPeak();
  using tape = new Tape();
  using inner = scope.with({ tape });
  const losses = headLoss(inner, h, head, inner.from(targets, [targets.length], "i32"), 0.5);
  tape.backward(inner, [losses]);
  const peakBytes = backend.stats().peakBytes - before;
  return { losses: [...valuesOf(losses)], headGradient: valuesOf(head.grad!), peakBytes };
}

test("losses and the head's gradient are those of the chunks, and no more than one chunk of logits is held", () => {
  const whole = lossOf(0, ROWS);
  const parts = [lossOf(0, CHUNK), lossOf(CHUNK, ROWS)];
  expect(whole.losses).toEqual(parts.flatMap(({ losses }) => losses));
  const summed = whole.headGradient.map((_, i) => parts.reduce((sum, part) => sum + part.headGradient[i]!, 0));
  const error = whole.headGradient.reduce((worst, value, i) => Math.max(worst, Math.abs(value - summed[i]!)), 0);
  expect(error).toBeLessThan(1e-14);
  expect(whole.peakBytes).toBeLessThan((CHUNK + 1) * VOCAB * Float64Array.BYTES_PER_ELEMENT);
});
