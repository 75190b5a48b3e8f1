import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { hfConfigText, resolveConfig, toJson } from "../config/index.ts";
import { FormatError } from "../core/errors.ts";
import { readFolderConfig } from "./folder-config.ts";

const CONFIG = resolveConfig("tiny", { temperature: 0.5 });
const HF = hfConfigText({ ...CONFIG.model, dtype: "f32", scaleFmt: null }, { bos: 0, eos: 1 });

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "fathom-folder-config-"));
  write("fathom.json", toJson(CONFIG));
  write("config.json", HF);
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

function write(name: string, text: string): void {
  writeFileSync(join(folder, name), text);
}

const edited = (values: object): string => JSON.stringify({ ...(JSON.parse(HF) as object), ...values });

test("fathom.json and the config.json that was written beside it agree", async () => {
  const { model, training, generation } = await readFolderConfig(folder);
  expect({ model, training, generation }).toEqual({
    model: CONFIG.model,
    training: CONFIG.training,
    generation: CONFIG.generation,
  });
});

test("generation_config.json has the last word on generation", async () => {
  write("generation_config.json", JSON.stringify({ do_sample: false, max_new_tokens: 7 }));
  const { generation, model } = await readFolderConfig(folder);
  expect(generation).toEqual({ ...CONFIG.generation, temperature: 0, maxTokens: 7 });
  expect(model).toEqual(CONFIG.model);
});

test("a config.json that was changed is refused, with both values", async () => {
  write("config.json", edited({ num_experts_per_tok: 1 }));
  const error = (await readFolderConfig(folder).catch((thrown: unknown) => thrown)) as Error;
  expect(error).toBeInstanceOf(FormatError);
  expect(error.message.replaceAll(folder, "DIR")).toMatchInlineSnapshot(
    `"DIR/config.json: must agree with fathom.json beside it: model.n_activated_experts is 2 there, got 1; restore config.json, or remove DIR/fathom.json to go by it alone"`,
  );
});

test.each([
  ["broken", "{bad"],
  ["of an unknown family", edited({ model_type: "foo" })],
  ["of another width of the latent", edited({ kv_lora_rank: 8 })],
])("a config.json %s is not passed over", async (_, text) => {
  write("config.json", text);
  await expect(readFolderConfig(folder)).rejects.toThrow("config.json");
});
