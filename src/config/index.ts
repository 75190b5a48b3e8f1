/** Configuration: the list of all parameters, presets, and the way from what a user wrote to checked numbers. */

export { modelSettings } from "./rows.ts";
export { fromGguf, GGUF_GATING, type GgufFacts } from "./gguf-config.ts";
export { fromHfConfig, hfConfigText } from "./hf-config.ts";
export { fromHfGeneration } from "./hf-generation.ts";
export { int8Format } from "./hf-quantization.ts";
export { describeParameter, parametersByLayer, type ParameterFacts } from "./explain.ts";
export { findParameter, listParameters, pathOf, rowOf, spellingsOf, toSnakeCase, type ParameterName } from "./names.ts";
export { preset, presetCure, presetNames, type RunSettings } from "./presets.ts";
export { resolveConfig, type ConfigInput, type ResolvedConfig } from "./resolve.ts";
export type { Layer, Row, Section, Value, Verb } from "./row.ts";
export type {
  GenerationConfig,
  ModelConfig,
  ParallelConfig,
  RunConfig,
  RuntimeConfig,
  TrainingConfig,
} from "./rows.ts";
export type { OpenRunFile, RunFilePort } from "./run-file.ts";
export { editRunFile, openRunFile } from "./run-files.ts";
export {
  changedSettings,
  configHash,
  diffConfigs,
  fromJson,
  isHashOf,
  printConfig,
  settingOf,
  toJson,
  type SettingChange,
} from "./text.ts";
export { checkRuns, idleSettings, readersOf, type IdleSetting } from "./usage.ts";
export { isInRange, rangeText } from "./values.ts";
