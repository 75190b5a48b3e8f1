/** Small random checkpoints of every architecture that GGUF knows, for readers other than Fathom. */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { writeRandomFolder } from "../../test/helpers/random-checkpoint.ts";
import { resolveConfig } from "../../src/config/index.ts";

const SMALL = { nLayers: 3, nDenseLayers: 1, vocabSize: 384, dim: 256, interDim: 512, moeInterDim: 256 };
const HEADS = { nHeads: 4, nKvHeads: 2, headDim: 64 };
const ROUTED = { nRoutedExperts: 8, nActivatedExperts: 3 };
const DIRECT = { qLoraRank: 0, scoreFunc: "softmax", topkMethod: "greedy", normTopkProb: false };

/** Preset and changed settings by name. */
const SOURCES: Readonly<Record<string, readonly [string, Record<string, unknown>]>> = {
  llama: ["deepseek-llm-7b", { ...SMALL, ...HEADS, nDenseLayers: 3, dtype: "bf16" }],
  deepseek: ["deepseek-moe-16b", { ...SMALL, ...HEADS, ...ROUTED, dtype: "bf16" }],
  "deepseek2-direct-q": ["tiny", { ...SMALL, ...DIRECT, nExpertGroups: 1, nLimitedGroups: 1, dtype: "bf16" }],
  "deepseek2-groups-yarn": ["tiny", { ...SMALL, kvLoraRank: 256, qLoraRank: 256, dtype: "bf16" }],
  "deepseek2-fp8": ["tiny", { ...SMALL, ropeFactor: 1, dtype: "fp8" }],
};

/** Writes all of them below `folder`. @returns their names. */
export async function writeRandomSources(folder: string): Promise<string[]> {
  for (const [name, [preset, model]] of Object.entries(SOURCES)) {
    mkdirSync(join(folder, name), { recursive: true });
    await writeRandomFolder(join(folder, name), resolveConfig({ preset, model }).model);
  }
  return Object.keys(SOURCES);
}
