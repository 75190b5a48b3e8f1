import { describe, expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { flagSettings, newRun, type TrainOptions } from "./train.ts";

const RUN = { base: "tiny", data: { kind: "corpus", name: "sotu" }, out: "runs/never", json: false } as const;

describe("flags and --set", () => {
  const training = (flags: TrainOptions) => resolveConfig("tiny", flagSettings(flags)).training;

  test("both reach the configuration, by whatever spelling", () => {
    expect(training({ steps: 7, set: ["lr=0.5"] })).toMatchObject({ steps: 7, lr: 0.5 });
    expect(training({ set: ["steps=9"], seed: 4 })).toMatchObject({ steps: 9, seed: 4 });
    expect(training({ set: ["training.max_steps=9"] }).steps).toBe(9);
  });

  test("of one parameter must agree", () => {
    expect(() => training({ steps: 7, set: ["steps=9"] })).toThrow("must agree with steps (9), got 7");
    expect(() => training({ seed: 7, set: ["training.seed=9"] })).toThrow("must agree with training.seed (9), got 7");
  });
});

test("a type in which weights are not saved is refused, not ignored", () => {
  expect(() => newRun(RUN, { dtype: "bf16" })).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: dtype: must be f32 in training, which saves the weights as it keeps them, got "bf16"; add --set dtype=f32]`,
  );
  expect(newRun(RUN, {}).config.model.dtype).toBe("f32");
});
