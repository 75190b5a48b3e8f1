import { expect, test } from "vitest";
import { resolveConfig, type ConfigInput } from "../config/index.ts";
import { evaluatorOfConfig } from "./configured-evaluator.ts";
import { configuredLayout } from "./configured-layout.ts";
import { device } from "./devices.ts";
import { NF4_BYTES } from "./precision.ts";

const lite = (settings: ConfigInput) =>
  resolveConfig("deepseek-v2-lite", { "training.micro_batch_size": 1, ...settings });

function partsOf(settings: ConfigInput) {
  const config = lite(settings);
  return evaluatorOfConfig(config).memoryParts(configuredLayout(config));
}

const BASE = 15_706_484_224;
const TRAINED = 7_105_536;

test("adapters of the configuration are trained and the rest is frozen, by the modules' names in a checkpoint", () => {
  const grads = evaluatorOfConfig(lite({})).job.recipe.gradBytes;
  expect(partsOf({}).gradients).toBe(grads * BASE);
  expect(partsOf({ lora_rank: 16 }).gradients).toBe(grads * TRAINED);
  const query = 27 * 16 * (2048 + 16 * 192);
  expect(partsOf({ lora_rank: 16, lora_targets: ["q_proj"] }).gradients).toBe(grads * query);
});

test("the frozen weights take the bytes of lora_base", () => {
  const frozen = (base: string): number =>
    partsOf({ lora_rank: 16, lora_base: base }).weights - evaluatorOfConfig(lite({})).job.recipe.weightBytes * TRAINED;
  expect(frozen("bf16")).toBe(2 * BASE);
  expect(frozen("int8")).toBe(BASE);
  expect(frozen("nf4")).toBeCloseTo(NF4_BYTES * BASE, 3);
});

test("targets of which the model has none are refused", () => {
  expect(() => evaluatorOfConfig(lite({ lora_rank: 16, lora_targets: ["query_key_value"] }))).toThrow(
    /^adapter\.lora_targets: must name a matrix of the model, got "query_key_value"; its modules: .*kv_b_proj/,
  );
});

test("the device is the one of the configuration unless another is given", () => {
  const config = lite({ "hardware.device": "a100" });
  expect(evaluatorOfConfig(config).job.cluster.device.name).toBe("a100");
  expect(evaluatorOfConfig(config, { device: device("b200") }).job.cluster.device.name).toBe("b200");
});
