import { expect, test } from "vitest";
import { clipScale } from "./clip.ts";
import { learningRate } from "./schedule.ts";

const base = {
  lr: 1,
  minLr: 0.1,
  scheduleSteps: 100,
  warmupSteps: 10,
  decaySteps: 20,
  milestones: [0.8, 0.9],
  milestoneFactors: [0.316, 0.1],
};

test("warm-up rises linearly to lr at its last step", () => {
  for (const schedule of ["cosine", "wsd", "piecewise", "constant"] as const) {
    expect(learningRate({ ...base, schedule }, 1)).toBeCloseTo(0.1, 12);
    expect(learningRate({ ...base, schedule }, 10)).toBe(1);
  }
});

test("cosine passes half-way between lr and minLr and ends at minLr", () => {
  const at = (step: number): number => learningRate({ ...base, schedule: "cosine" }, step);
  expect(at(55)).toBeCloseTo(0.55, 12);
  expect(at(100)).toBeCloseTo(0.1, 12);
  expect(at(1000)).toBeCloseTo(0.1, 12);
});

test("wsd is level until the last decaySteps, then falls linearly", () => {
  const at = (step: number): number => learningRate({ ...base, schedule: "wsd" }, step);
  expect(at(80)).toBe(1);
  expect(at(90)).toBeCloseTo(0.55, 12);
  expect(at(100)).toBeCloseTo(0.1, 12);
});

test("piecewise steps down after each milestone", () => {
  const at = (step: number): number => learningRate({ ...base, schedule: "piecewise" }, step);
  expect([at(80), at(81), at(90), at(91), at(100)]).toEqual([1, 0.316, 0.316, 0.1, 0.1]);
});

test("clipping scales only gradients longer than the limit", () => {
  expect([clipScale(0.5, 1), clipScale(4, 1), clipScale(4, 0)]).toEqual([1, 0.25, 1]);
});
