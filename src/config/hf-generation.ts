/** Generation settings as the `generation_config.json` of a Hugging Face model folder. */

import { ConfigError } from "../core/errors.ts";
import { GENERATION_ROWS } from "./generation-rows.ts";
import { resolveConfig } from "./resolve.ts";
import type { Row } from "./row.ts";
import type { GenerationConfig } from "./rows.ts";
import { parseObject } from "./text.ts";

/** Settings that have a key of their own, as [name, key]. */
const KEYS = Object.entries<Row>(GENERATION_ROWS)
  .map(([name, { aliases }]) => [name, aliases?.hf] as const)
  .filter((pair): pair is readonly [string, string] => pair[1] !== undefined);

/**
 * What the file asks for, ready for `resolveConfig({ generation })`. `do_sample: false` takes the likeliest token. Keys that
 * are absent or null say nothing, nor do those that have no setting here.
 *
 * @throws FormatError when the text is not a JSON object. @throws ConfigError for a value that a setting cannot have.
 */
export function fromHfGeneration(text: string, file = "generation_config.json"): Partial<GenerationConfig> {
  const given = parseObject(text, file);
  const settings: Record<string, unknown> = {};
  for (const [name, key] of KEYS) if ((given[key] ?? null) !== null) settings[name] = given[key];
  if (given.do_sample === false) settings.temperature = 0;
  const generation = settings as Partial<GenerationConfig>;
  try {
    resolveConfig({ generation });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const [, name = ""] = error.param.split(".");
    const key = KEYS.find(([own]) => own === name)?.[1] ?? error.param;
    throw new ConfigError(`${file} ${key}`, error.rule, error.value, error.hint);
  }
  return generation;
}
