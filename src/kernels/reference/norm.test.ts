import { expect, test } from "vitest";
import { blank, f64, runKernel } from "../../../test/helpers/kernel-calls.ts";
import { createReferenceBackend } from "./backend.ts";

test("rmsNorm divides each row by the root of its mean square plus eps", () => {
  const { y, rstd } = runKernel(
    createReferenceBackend(),
    "rmsNorm",
    { x: f64([3, 4, NaN, 0, 0, NaN]), w: f64([1, 2]), y: blank("f64", 4), rstd: blank("f64", 2) },
    { n: 2, d: 2, xStride: 3, eps: 0.25 },
  );
  const scale = 1 / Math.sqrt(12.75);
  expect([...rstd]).toEqual([scale, 2]);
  expect([...y]).toEqual([3 * scale, 8 * scale, 0, 0]);
});
