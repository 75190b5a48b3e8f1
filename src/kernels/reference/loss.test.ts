import { expect, test } from "vitest";
import { blank, f64, i32, runKernel } from "../../../test/helpers/kernel-calls.ts";
import { createReferenceBackend } from "./backend.ts";

const backend = createReferenceBackend();
const logits = f64([0, Math.log(3), 1000, 1000]);

test("the loss is −log of the target's probability and 0 for an ignored row", () => {
  const { losses } = runKernel(
    backend,
    "softmaxCrossEntropy",
    { logits, targets: i32([0, -1]), losses: blank("f64", 2), dLogits: undefined },
    { rows: 2, vocab: 2, scale: 1 },
  );
  expect(losses[0]).toBeCloseTo(Math.log(4), 14);
  expect(losses[1]).toBe(0);
});

test("the gradient may be written over the logits, which may be large", () => {
  const { logits: written } = runKernel(
    backend,
    "softmaxCrossEntropy",
    { logits, targets: i32([1, 0]), losses: blank("f64", 2), dLogits: logits },
    { rows: 2, vocab: 2, scale: 2 },
    { dLogits: { of: "logits", at: 0 } },
  );
  for (const [i, value] of [0.5, -0.5, -1, 1].entries()) expect(written[i]).toBeCloseTo(value, 14);
});

test("a target beyond the vocabulary is refused", () => {
  const run = (): unknown =>
    runKernel(
      backend,
      "softmaxCrossEntropy",
      { logits, targets: i32([2, 0]), losses: blank("f64", 2), dLogits: undefined },
      { rows: 2, vocab: 2, scale: 1 },
    );
  expect(run).toThrowErrorMatchingInlineSnapshot(
    `[InternalError: invariant: softmaxCrossEntropy.targets lie below 2, got 2; this is a bug in Fathom]`,
  );
});
