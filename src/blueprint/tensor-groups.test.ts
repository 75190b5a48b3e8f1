import { expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { blueprint } from "./blueprint.ts";
import { releasedGroups, releasedTensors } from "./checkpoint-names.ts";
import { compareWithReleased, groupFinder } from "./tensor-groups.ts";

const PRESETS = ["tiny", "deepseek-v2-lite", "deepseek-v4-flash", "deepseek-vl2-tiny", "bert-base"];
const plan = (name: string) => blueprint(resolveConfig(name, name === "tiny" ? { dtype: "fp8" } : {}).model);

test.each(PRESETS)("every tensor of %s is found by its name", (name) => {
  const find = groupFinder(releasedGroups(plan(name)));
  const others = [...releasedTensors(plan(name))].filter((tensor) => {
    const group = find(tensor.name);
    const isIts = group?.parameter === tensor.parameter && group.role === tensor.role;
    return !isIts || group.shape.join() !== tensor.shape.join();
  });
  expect(others).toEqual([]);
});

test("an expert beyond the last, a number in another form, or none is no tensor of the model", () => {
  const find = groupFinder(releasedGroups(plan("deepseek-v2-lite")));
  const named = (expert: string) => find(`model.layers.1.mlp.experts.${expert}.gate_proj.weight`);
  expect(named("63")?.parameter).toBe("layers.1.ffn.experts.w1");
  for (const expert of ["64", "063", "00", "", "-1", "1e1", "*"]) expect(named(expert), expert).toBeUndefined();
  expect(find("model.layers.0.mlp.experts.1.gate_proj.weight")).toBeUndefined();
});

test("a checkpoint is like the released one with all of its tensors and no other, in their shapes and types", () => {
  const groups = releasedGroups(plan("tiny"));
  const tensors = [...releasedTensors(plan("tiny"))].map(({ name, dtype, shape }) => [name, { dtype, shape }] as const);
  const [first, ...rest] = tensors;
  const like = (list: readonly (readonly [string, { dtype: string; shape: readonly number[] }])[]) =>
    compareWithReleased(groups, new Map(list));
  expect(like(tensors)).toEqual({ sameTensors: true, sameTypes: true });
  expect(like([...rest, [first![0], { ...first![1], dtype: "F16" }]])).toEqual({ sameTensors: true, sameTypes: false });
  const others = { sameTensors: false, sameTypes: false };
  expect(like(rest)).toEqual(others);
  expect(like([...tensors, ["more", first![1]]])).toEqual(others);
  expect(like([...rest, ["another", first![1]]])).toEqual(others);
  expect(like([...rest, [first![0], { ...first![1], shape: [1] }]])).toEqual(others);
});
