/** Weights in types that are never written here: GGUF files of others against the same values in F32. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testBackends } from "../../test/helpers/backends.ts";
import { randomBlockFiles, READ_TYPES, type RandomBlockFiles } from "../../test/helpers/random-blocks.ts";
import type { ModelConfig } from "../config/index.ts";
import { writeGguf } from "../formats/index.ts";
import { nodeFiles, openGguf } from "../formats/node.ts";
import { createReferenceBackend, type Backend } from "../kernels/index.ts";
import { Scope } from "../tensor/index.ts";
import { DeepSeekModel, ropeTable } from "./index.ts";
import { openWeights, readModelConfig } from "./node.ts";

const TOKENS = 24;
/** Sums in f32 of the same factors in another order, through the layers of a small model. */
const REORDERED = 2e-5;

let folder: string;
const files = new Map<string, RandomBlockFiles>();
const pathOf = (name: string): string => join(folder, `${name}.gguf`);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-read-types-"));
  for (const type of READ_TYPES) {
    const made = randomBlockFiles(type);
    files.set(type, made);
    await writeGguf(nodeFiles, pathOf(type), made.stored);
    await writeGguf(nodeFiles, pathOf(`${type}-f32`), made.plain);
  }
}, 60_000);
afterAll(() => rm(folder, { recursive: true }));

async function logitsOf(path: string, backend: Backend): Promise<Float32Array> {
  using scope = Scope.root(backend);
  const { model: config } = await readModelConfig(path);
  const model = new DeepSeekModel(config, await openWeights(scope, path, config));
  const ints = (values: readonly number[]) => scope.from(values, [values.length], "i32");
  const places = Array.from({ length: TOKENS }, (_, i) => i);
  const at = {
    positions: ints(places),
    seqStarts: ints([0, TOKENS]),
    ropeTable: scope.from(ropeTable(config, TOKENS), [TOKENS, config.qkRopeHeadDim]),
  };
  const logits = model.logits(scope, ints(places.map((i) => (17 * i + 5) % config.vocabSize)), at);
  return (await logits.read()) as Float32Array;
}

/** The largest difference in parts of the range of `expected`. */
function logitsError(found: Float32Array, expected: Float32Array): number {
  const range = expected.reduce((max, value) => Math.max(max, value), -Infinity) - Math.min(...expected);
  return expected.reduce((worst, value, i) => Math.max(worst, Math.abs(value - found[i]!)), 0) / range;
}

describe.each(testBackends())("on the $label backend", ({ create }) => {
  test.each(READ_TYPES)("a file of %s gives the logits of its decoded values", async (type) => {
    const expected = await logitsOf(pathOf(`${type}-f32`), create());
    expect(logitsError(await logitsOf(pathOf(type), create()), expected)).toBeLessThan(REORDERED);
  });
});

/** Lists of experts have an entry of 8 bytes for each matrix. */
function listBytes({ nRoutedExperts, nLayers, nDenseLayers }: ModelConfig): number {
  return 8 * 3 * nRoutedExperts * (nLayers - nDenseLayers);
}

test.each(READ_TYPES)("weights in %s take the bytes that they have in the file", async (type) => {
  const { model } = files.get(type)!;
  const gguf = await openGguf(pathOf(type));
  await gguf.close();
  using scope = Scope.root(createReferenceBackend());
  const { bytes } = await openWeights(scope, pathOf(type), model);
  const tensors = [...gguf.tensors.values()];
  expect(bytes).toBe(tensors.reduce((sum, tensor) => sum + tensor.bytes, listBytes(model)));
  const kinds = new Set(tensors.filter(({ shape }) => shape.length > 1).map(({ dtype }) => dtype));
  expect(kinds).toEqual(new Set([type, "F32"]));
});
