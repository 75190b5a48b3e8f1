/** Files that llama.cpp's converter has written from Hugging Face folders with drawn weights. See README.md here. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { isOptionalInGguf } from "../../src/blueprint/index.ts";
import { openModel } from "../../src/blueprint/node.ts";
import { fromHfConfig, resolveConfig } from "../../src/config/index.ts";
import type { WritableBlockType } from "../../src/core/index.ts";
import { openGguf } from "../../src/formats/node.ts";
import { loadTokenizer } from "../../src/tokenizer/node.ts";
import { drawnGgufTensors } from "../helpers/drawn-gguf.ts";
import { drawWeights } from "../helpers/drawn-weights.ts";

const FOLDER = join(import.meta.dirname, "converted");

interface Facts {
  readonly type: string;
  readonly seed: number;
  /** config.json of the folder. */
  readonly config: object;
  readonly cases: readonly { readonly text: string; readonly ids: readonly number[] }[];
}

describe.each([
  ["deepseek", "deepseek"],
  ["deepseek2", "deepseek2"],
  ["deepseek2_q8_0", "deepseek2"],
  ["deepseek32", "deepseek32"],
])("%s, converted by llama.cpp", (name, architecture) => {
  const file = join(FOLDER, `${name}.gguf`);
  const facts = JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8")) as Facts;
  const model = resolveConfig({ model: fromHfConfig(JSON.stringify(facts.config)) }).model;

  test("its metadata give the model of the folder's config.json", async () => {
    const opened = await openModel(file);
    if (opened.source.kind !== "gguf") throw new Error(`${file} is a GGUF file`);
    expect(opened.source.metadata.get("general.architecture")).toEqual({ type: "text", value: architecture });
    // GGUF has no type of the whole model.
    expect({ ...opened.model, dtype: model.dtype }).toEqual(model);
  });

  test("its tensors have the names, shapes, types and bytes of the folder's values", async () => {
    const reader = await openGguf(file);
    const names = new Set([...reader.tensors.keys()].filter((tensor) => !isOptionalInGguf(tensor)));
    const style = { splitKvB: true, type: facts.type.toUpperCase() as WritableBlockType };
    for (const due of drawnGgufTensors(model, drawWeights(model, facts.seed), style)) {
      expect(reader.tensors.get(due.name), due.name).toMatchObject({ dtype: due.dtype, shape: due.shape });
      expect(Buffer.compare(await reader.read(due.name), Buffer.concat(due.chunks())), due.name).toBe(0);
      names.delete(due.name);
    }
    await reader.close();
    expect([...names]).toEqual([]);
  });

  test("its tokenizer gives the ids of the folder's", async () => {
    const tokenizer = await loadTokenizer(file);
    expect(tokenizer.decode([tokenizer.bosId, tokenizer.eosId])).toBe("<｜begin▁of▁sentence｜><｜end▁of▁sentence｜>");
    for (const { text, ids } of facts.cases) expect([...tokenizer.encode(text)], text).toEqual(ids);
  });
});
