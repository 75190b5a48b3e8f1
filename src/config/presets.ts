/** Named configurations, as plain objects that say only what differs from the defaults of the rows. */

import { ConfigError, nearest } from "../core/errors.ts";
import { bertBase, llama27b } from "./presets/baselines.ts";
import { deepseekV2, deepseekV2Lite, deepseekV3, deepseekV31, deepseekV32 } from "./presets/deepseek.ts";
import { deepseekLlm67b, deepseekLlm7b, deepseekMoe16b } from "./presets/first.ts";
import { liteSlice, nano, tiny } from "./presets/small.ts";
import { deepseekV4Flash, deepseekV4Pro } from "./presets/v4.ts";
import { deepseekVl2Base, deepseekVl2Small, deepseekVl2Tiny } from "./presets/vl2.ts";
import type { GenerationConfig, ModelSettings, RuntimeConfig, TrainingSettings } from "./rows.ts";

/** A configuration before it is resolved. */
export interface RunSettings {
  readonly model?: Partial<ModelSettings>;
  readonly training?: Partial<TrainingSettings>;
  readonly generation?: Partial<GenerationConfig>;
  readonly runtime?: Partial<RuntimeConfig>;
}

const PRESETS: Readonly<Record<string, () => RunSettings>> = {
  nano,
  tiny,
  "lite-slice": liteSlice,
  "deepseek-llm-7b": deepseekLlm7b,
  "deepseek-llm-67b": deepseekLlm67b,
  "deepseek-moe-16b": deepseekMoe16b,
  "deepseek-v2-lite": deepseekV2Lite,
  "deepseek-v2": deepseekV2,
  "deepseek-v2.5": deepseekV2,
  "deepseek-coder-v2": deepseekV2,
  "deepseek-v3": deepseekV3,
  "deepseek-r1": deepseekV3,
  "deepseek-v3.1": deepseekV31,
  "deepseek-v3.2": deepseekV32,
  "deepseek-v4-flash": deepseekV4Flash,
  "deepseek-v4-pro": deepseekV4Pro,
  "deepseek-vl2-tiny": deepseekVl2Tiny,
  "deepseek-vl2-small": deepseekVl2Small,
  "deepseek-vl2-base": deepseekVl2Base,
  "llama2-7b": llama27b,
  "bert-base": bertBase,
};

export function presetNames(): string[] {
  return Object.keys(PRESETS);
}

/** @throws ConfigError when no preset has this name. */
export function preset(name: string): RunSettings {
  if (Object.hasOwn(PRESETS, name)) return PRESETS[name]!();
  throw new ConfigError("preset", "must be a known preset", name, presetCure(name));
}

/** More presets than this that begin as a name does say nothing of what was meant. */
const MOST_MEANT = 4;

/** What an unknown name may have meant: its spelling in other letters, what begins so, the nearest; else all. */
export function presetCure(name: string): string {
  const wanted = plain(name);
  const same = presetNames().filter((known) => plain(known) === wanted);
  const longer = wanted === "" ? [] : presetNames().filter((known) => plain(known).startsWith(wanted));
  const near = nearest(name, presetNames());
  for (const meant of [same, longer, near === undefined ? [] : [near]]) {
    if (meant.length > 0 && meant.length <= MOST_MEANT) return `did you mean ${meant.join(" or ")}?`;
  }
  return `choose one of ${presetNames().join(", ")}`;
}

function plain(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z0-9.]/g, "");
}
