import { expect, test } from "vitest";
import { fromHfGeneration } from "./hf-generation.ts";

const read = (config: unknown): unknown => fromHfGeneration(JSON.stringify(config));

test("DeepSeek-V3's generation_config.json", () => {
  const file = { _from_model_config: true, bos_token_id: 0, eos_token_id: 1, do_sample: true };
  expect(read({ ...file, temperature: 0.6, top_p: 0.95, transformers_version: "4.46.3" })).toEqual({
    temperature: 0.6,
    topP: 0.95,
  });
});

test("do_sample false takes the likeliest token; null says nothing", () => {
  expect(read({ do_sample: false, temperature: 0.3, max_new_tokens: null, top_k: 50, stop_strings: ["###"] })).toEqual({
    temperature: 0,
    topK: 50,
    stop: ["###"],
  });
});

test("a value that cannot be is named with its file and key", () => {
  expect(() => read({ top_p: 2 })).toThrow(/^generation_config\.json top_p: must be .*, got 2/);
  expect(() => fromHfGeneration("[]", "x/generation_config.json")).toThrow("x/generation_config.json: must be a JSON");
});
