/** Generation from GGUF files in types that are never written here. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testBackends } from "../../test/helpers/backends.ts";
import { randomBlockFiles, READ_TYPES } from "../../test/helpers/random-blocks.ts";
import { writeGguf } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import type { Backend } from "../kernels/index.ts";
import { openEngine } from "./node.ts";

let folder: string;
const pathOf = (name: string): string => join(folder, `${name}.gguf`);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-read-types-"));
  for (const type of READ_TYPES) {
    const { stored, plain } = randomBlockFiles(type);
    await writeGguf(nodeFiles, pathOf(type), stored);
    await writeGguf(nodeFiles, pathOf(`${type}-f32`), plain);
  }
}, 60_000);
afterAll(() => rm(folder, { recursive: true }));

async function answer(path: string, backend: Backend): Promise<string> {
  using engine = await openEngine({ folder: path, backend, now: () => 0 });
  let text = "";
  const generation = { ...engine.settings.generation, temperature: 0, maxTokens: 12 };
  for await (const piece of engine.generate("What is", generation)) text += piece.text;
  return text;
}

describe.each(testBackends())("on the $label backend", ({ create }) => {
  test.each(READ_TYPES)("a file of %s writes the greedy text of its decoded values", async (type) => {
    const expected = await answer(pathOf(`${type}-f32`), create());
    expect(expected).not.toBe("");
    expect(await answer(pathOf(type), create())).toBe(expected);
  });
});
