import { expect, test } from "vitest";
import { bf16, f64, runKernel } from "../../../test/helpers/kernel-calls.ts";
import { createReferenceBackend } from "./backend.ts";

test("the first AdamW step moves by lr against the gradient's sign and decays apart from it", () => {
  const { p, m, v, copy } = runKernel(
    createReferenceBackend(),
    "adamwInto",
    { p: f64([1, 1]), g: f64([6, -0.5]), m: f64([0, 0]), v: f64([0, 0]), copy: bf16([0, 0]) },
    {
      ...{ n: 2, lr: 0.125, beta1: 0.5, beta2: 0.75, eps: 0, weightDecay: 0.5 },
      ...{ correction1: 0.5, correction2: 0.25, gradScale: 2 },
    },
  );
  expect([...m]).toEqual([6, -0.5]);
  expect([...v]).toEqual([36, 0.25]);
  expect([...p]).toEqual([1 - 0.125 * 1.5, 1 - 0.125 * -0.5]);
  expect([...copy]).toEqual([0.8125, 1.0625]);
});
