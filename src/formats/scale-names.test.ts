import { expect, test } from "vitest";
import { scaledWeights, scaleNames } from "./scale-names.ts";

test("the scales of a weight have the names of V3, of compressed-tensors and of V4", () => {
  expect(scaleNames("a.up_proj.weight")).toEqual([
    "a.up_proj.weight_scale_inv",
    "a.up_proj.weight_scale",
    "a.up_proj.scale",
  ]);
  expect(scaleNames("experts.gate_up_proj")).toEqual(["experts.gate_up_proj_scale_inv", "experts.gate_up_proj_scale"]);
});

test("a name of scales leads back to its weight, and another name to none", () => {
  for (const weight of ["a.up_proj.weight", "experts.gate_up_proj"]) {
    for (const name of scaleNames(weight)) expect(scaledWeights(name)).toEqual([weight]);
  }
  expect(scaledWeights("a.up_proj.weight")).toEqual([]);
});
