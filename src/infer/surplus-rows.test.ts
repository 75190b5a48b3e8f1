/** A model with more rows than its tokenizer has ids, whose surplus rows have the largest logits. */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { testBackends } from "../../test/helpers/backends.ts";
import { createByteTokenizer } from "../../test/helpers/byte-tokenizer.ts";
import { collect } from "../../test/helpers/collect.ts";
import { drawWeights } from "../../test/helpers/drawn-weights.ts";
import { hfConfigText, resolveConfig } from "../config/index.ts";
import { writeSafetensors } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import { createReferenceBackend } from "../kernels/index.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import { openEngine } from "./node.ts";

const SURPLUS = 13;
const tokenizer = createByteTokenizer();
const { model } = resolveConfig("tiny", { vocab_size: tokenizer.vocabSize + SURPLUS, n_mtp_layers: 0 });

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-rows-"));
});
afterEach(() => rm(folder, { recursive: true }));

/** The head's rows without a token are row 3 and its negative in turn, ten times as large: one of the two has a large logit. */
async function writeModel(): Promise<void> {
  await writeFile(join(folder, "config.json"), hfConfigText(model, { bos: 0, eos: 1 }));
  await writeFile(join(folder, "tokenizer.json"), tokenizer.toJson());
  await writeFile(join(folder, "tokenizer_config.json"), tokenizer.toConfigJson());
  const sources = [...drawWeights(model, 3)].map(([name, { shape, values: drawn }]) => {
    const values = Float32Array.from(drawn);
    if (name === "lm_head.weight") enlargeSurplus(values, shape[1]!);
    return { name, dtype: "F32" as const, shape, chunks: () => [new Uint8Array(values.buffer)] };
  });
  await writeSafetensors(nodeFiles, join(folder, "model.safetensors"), sources);
}

function enlargeSurplus(head: Float32Array, dim: number): void {
  for (let row = tokenizer.vocabSize; row < model.vocabSize; row++) {
    const like = head.subarray(3 * dim, 4 * dim);
    const sign = row % 2 === 0 ? 10 : -10;
    head.set(
      like.map((value) => sign * value),
      row * dim,
    );
  }
}

/** The ids that were generated, seen by the decoder. */
async function generated(wide: boolean, settings: object, backend = createReferenceBackend()): Promise<number[]> {
  const ids: number[] = [];
  const watched = {
    ...{ bosId: 0, eosId: 1, padId: 2, addBos: true },
    vocabSize: wide ? model.vocabSize : tokenizer.vocabSize,
    encode: (text: string) => tokenizer.encode(text),
    createDecoder: () => ({ push: (id: number) => (ids.push(id), ""), flush: () => "" }),
  };
  using engine = await openEngine({ folder, backend, now: () => 0, tokenizer: watched as unknown as Tokenizer });
  await collect(engine.generate("What is", { ...engine.settings.generation, maxTokens: 40, seed: 5, ...settings }));
  return ids;
}

describe.each(testBackends())("on the $label backend", ({ create }) => {
  test.each([
    ["the likeliest", { temperature: 0 }],
    ["a hot draw", { temperature: 2, topK: 0, topP: 1 }],
    ["a draw among the likeliest", { temperature: 1, topK: 8, topP: 0.9 }],
    ["a draw with a penalty", { temperature: 1, topK: 0, topP: 1, repetitionPenalty: 1.3 }],
  ])("%s is never a row without a token, though those have the largest logits", async (_, settings) => {
    await writeModel();
    const ids = await generated(false, settings, create());
    expect(ids.length).toBeGreaterThan(0);
    expect(ids.filter((id) => id >= tokenizer.vocabSize)).toEqual([]);
    // With a tokenizer that has a token for every row they are what is generated.
    const all = await generated(true, settings, create());
    expect(all.filter((id) => id >= tokenizer.vocabSize).length).toBeGreaterThan(all.length / 2);
  });
});
