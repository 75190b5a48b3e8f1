/** Configuration: the list of all parameters, presets, and the way from what a user wrote to checked numbers. */

export { fromHfConfig, hfConfigText } from "./hf-config.ts";
export { findParameter, listParameters, rowOf, spellingsOf, toSnakeCase } from "./names.ts";
export { preset, presetNames, type RunSettings } from "./presets.ts";
export { resolveConfig, type ConfigInput, type ResolvedConfig } from "./resolve.ts";
export type { Row, Section, Value } from "./row.ts";
export type { GenerationConfig, ModelConfig, RunConfig, RuntimeConfig, TrainingConfig } from "./rows.ts";
export { configHash, diffConfigs, fromJson, printConfig, toJson, type SettingChange } from "./text.ts";
