import { expect, test } from "vitest";
import { measureStep, stepsWithin } from "./trial.ts";

/** Steps on a clock of their own, the first of them slower than the others. */
function steps(firstMs: number, ms: number): { taken: () => number; measured: Promise<number> } {
  let [clock, taken] = [0, 0];
  const step = async (): Promise<{ ms: number }> => {
    const took = taken++ === 0 ? firstMs : ms;
    clock += took;
    return { ms: took };
  };
  return { taken: () => taken, measured: measureStep(step, () => clock) };
}

test("a trial lasts five seconds, and its slow first step does not count", async () => {
  const { taken, measured } = steps(1000, 100);
  expect(await measured).toBe(100);
  expect(taken()).toBe(41);
});

test("a trial of slow steps takes three of them", async () => {
  const { taken, measured } = steps(9000, 4000);
  expect(await measured).toBe(4000);
  expect(taken()).toBe(3);
});

test("the steps fill the minutes, and are never fewer than twenty", () => {
  expect(stepsWithin(2, 100)).toBe(1200);
  expect(stepsWithin(0.5, 70)).toBe(429);
  expect(stepsWithin(0.1, 1000)).toBe(20);
});
