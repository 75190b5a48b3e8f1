/** Models that do not run here yet, and GGUF files as other programs write them, are read and converted all the same. */

import { afterAll, expect, test } from "vitest";
import { ConversionFolder, differences, modelOf, SMALL_V4 } from "../../test/helpers/conversion.ts";
import { drawnGguf } from "../../test/helpers/drawn-gguf.ts";
import { drawWeights, type DrawnTensor } from "../../test/helpers/drawn-weights.ts";
import { ggufKeys } from "../../test/helpers/gguf-keys.ts";
import { randomBlockFiles, READ_TYPES } from "../../test/helpers/random-blocks.ts";
import { plainValues, writeRandomFolder } from "../../test/helpers/random-checkpoint.ts";
import { blueprint, countElements } from "../blueprint/index.ts";
import { openModel } from "../blueprint/node.ts";
import type { ModelConfig } from "../config/index.ts";
import { writeGguf, type GgufContent } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import { verifyConversion } from "./node.ts";

const at = new ConversionFolder();
afterAll(() => at[Symbol.dispose]());

const SIZES = { nLayers: 2, nDenseLayers: 1, vocabSize: 264, dim: 160, interDim: 192, moeInterDim: 96 };
const HEADS = { nHeads: 2, qLoraRank: 32, kvLoraRank: 32, qkNopeHeadDim: 16, qkRopeHeadDim: 8, vHeadDim: 16 };
const EXPERTS = { nRoutedExperts: 8, nActivatedExperts: 2, nExpertGroups: 4, nLimitedGroups: 2 };
const V32 = { ...SIZES, ...HEADS, ...EXPERTS, indexNHeads: 2, indexHeadDim: 16 };
const V4 = { ...SMALL_V4, vocabSize: 264 };

/** MTP layers and tables included. */
function countValues(model: ModelConfig): number {
  return blueprint(model).parameters.reduce((sum, { shape }) => sum + countElements(shape), 0);
}

test.each([
  ["V3.2", "deepseek-v3.2", V32, "deepseek_v32"],
  ["V4", "deepseek-v4-flash", V4, "deepseek_v4"],
])("%s's fp8 folder becomes bf16, int8 and fp8 again, whole each time", async (_, preset, settings, type) => {
  const from = at.path(preset);
  await writeRandomFolder(from, modelOf(preset, settings));
  const total = countValues(modelOf(preset, settings));
  for (const dtype of ["bf16", "int8", "fp8"]) {
    const { digests } = await at.convert(from, `${preset}-${dtype}`, dtype);
    expect((await verifyConversion(at.path(`${preset}-${dtype}`), digests)).values, dtype).toBe(total);
    const { model } = await openModel(at.path(`${preset}-${dtype}`));
    expect([model.dtype, model.expertDtype]).toEqual([dtype === "int8" ? "bf16" : dtype, null]);
    expect(model.scaleFmt).toBe(dtype === "fp8" && type === "deepseek_v4" ? "ue8m0" : null);
  }
  await at.convert(at.path(`${preset}-fp8`), `${preset}-back`, "f32");
  expect(
    differences(await plainValues(at.path(`${preset}-back`)), await plainValues(at.path(`${preset}-fp8`))),
  ).toEqual([]);
});

/** A file with the metadata of `arch` and a tokenizer; tables of experts by token are integers. */
function ggufOf(
  model: ModelConfig,
  arch: string,
  weights: ReadonlyMap<string, DrawnTensor>,
  splitKvB: boolean,
): GgufContent {
  const { metadata, tensors } = drawnGguf(model, weights, { splitKvB, type: "F32" });
  const tokenizer = [...metadata].filter(([key]) => key.startsWith("tokenizer."));
  const keys = Object.entries(ggufKeys(model, arch, splitKvB));
  return {
    metadata: new Map([
      ["general.architecture", { type: "text", value: arch }],
      ...keys.map(([key, entry]) => [`${arch}.${key}`, entry] as const),
      ...tokenizer,
    ]),
    tensors: tensors.map((tensor) => {
      if (!tensor.name.includes("tid2eid")) return tensor;
      const [chunk] = [...(tensor.chunks() as Iterable<Uint8Array>)];
      const table = Int32Array.from(new Float32Array(chunk!.slice().buffer));
      return { ...tensor, dtype: "I32", chunks: () => [new Uint8Array(table.buffer)] } as const;
    }),
  };
}

function draw(model: ModelConfig): Map<string, DrawnTensor> {
  const drawn = [...drawWeights(model, 5)];
  return new Map(
    drawn.map(([name, { shape, values }]) => {
      const isTable = name.includes("tid2eid");
      return [name, { shape, values: isTable ? values.map((_, i) => i % model.nRoutedExperts) : values }];
    }),
  );
}

test.each([
  ["deepseek2 with the kv projection whole", "tiny", { vocabSize: 264, nMtpLayers: 0 }, "deepseek2", false],
  ["deepseek2 with the kv projection split", "tiny", { vocabSize: 264, nMtpLayers: 0 }, "deepseek2", true],
  ["deepseek32", "deepseek-v3.2", { ...V32, nMtpLayers: 0 }, "deepseek32", true],
  ["deepseek4", "deepseek-v4-flash", { ...V4, nMtpLayers: 0, compressRatios: [0, 0, 4, 128] }, "deepseek4", true],
])("a GGUF file of %s becomes a folder with the same values", async (_, preset, settings, arch, splitKvB) => {
  const model = modelOf(preset, { ...settings, dtype: "f32", scaleFmt: null, expertDtype: null });
  const weights = draw(model);
  const name = `${arch}-${splitKvB}`;
  await writeGguf(nodeFiles, at.path(`${name}.gguf`), ggufOf(model, arch, weights, splitKvB));
  const { digests } = await at.convert(at.path(`${name}.gguf`), name, "f32");
  await verifyConversion(at.path(name), digests);
  const due = new Map([...weights].map(([own, { values }]) => [own, Float64Array.from(values)]));
  expect(differences(await plainValues(at.path(name)), due)).toEqual([]);
});

test.each(READ_TYPES)(
  "a GGUF file in %s, which is never written, becomes a folder with its decoded values",
  async (type) => {
    const { stored, plain } = randomBlockFiles(type);
    await writeGguf(nodeFiles, at.path(`${type}.gguf`), stored);
    await writeGguf(nodeFiles, at.path(`${type}-plain.gguf`), plain);
    const [got, due] = [
      await at.convert(at.path(`${type}.gguf`), type, "f32"),
      await at.convert(at.path(`${type}-plain.gguf`), `${type}-plain`, "f32"),
    ];
    expect(got.digests.get("model.safetensors")).toBe(due.digests.get("model.safetensors"));
  },
);
