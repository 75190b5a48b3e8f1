import { expect, test } from "vitest";
import { resolveConfig } from "./index.ts";

test("the preset of V3 has the settings of the DeepSeek-V3 report 4.2", () => {
  const { training, model } = resolveConfig("deepseek-v3");
  expect(training).toMatchObject({
    lr: 2.2e-4,
    minLr: 2.2e-5,
    warmupSteps: 2000,
    batchSize: 15_360,
    beta1: 0.9,
    beta2: 0.95,
    weightDecay: 0.1,
    gradClip: 1,
  });
  expect(model).toMatchObject({ routerBiasSpeed: 0.001, seqBalanceAlpha: 0.0001, mtpLossWeight: 0.3 });
});

test("the preset of V2-Lite has the settings of the DeepSeek-V2 report, appendix B", () => {
  const { training, model } = resolveConfig("deepseek-v2-lite");
  expect(training).toMatchObject({ lr: 4.2e-4, batchSize: 4608 });
  expect(model.seqBalanceAlpha).toBe(0.001);
});
