/**
 * From what a user wrote to numbers: fills defaults, derives, checks, freezes, and records why each value is what it
 * is. After it nobody decides again.
 */

import { ConfigError } from "../core/errors.ts";
import { CROSS_RULES } from "./cross-rules.ts";
import { MODEL_DEFAULTS, trainingDefaults } from "./defaults.ts";
import { findParameter, listParameters, rowOf, toSnakeCase, type ParameterName } from "./names.ts";
import { preset, type RunSettings } from "./presets.ts";
import type { Row, Section, Value } from "./row.ts";
import type {
  GenerationConfig,
  ModelConfig,
  ModelSettings,
  RunConfig,
  RuntimeConfig,
  TrainingConfig,
  TrainingSettings,
} from "./rows.ts";
import { checkValue } from "./values.ts";

/**
 * Settings in any accepted spelling, nested by section or with the section left out or put in front with a dot. A key
 * `preset` names the configuration that they change.
 */
export type ConfigInput = RunSettings | Readonly<Record<string, unknown>>;

export interface ResolvedConfig extends RunConfig {
  /** The reason of each value, by `section.name` in snake_case. */
  readonly why: Readonly<Record<string, string>>;
}

interface Given {
  readonly value: Value;
  readonly spelling: string;
  readonly why: string;
}

type GivenValues = Map<string, Given>;

/**
 * The complete, checked, frozen configuration.
 *
 * @param base - a preset's name, or settings.
 * @param overrides - settings that win over `base`.
 * @throws ConfigError for an unknown or doubly given key, a value out of range, or settings that conflict.
 *
 * @example
 * const { model, training } = resolveConfig("nano", { lr: 1e-3, hidden_size: 384 });
 */
export function resolveConfig(base: string | ConfigInput, overrides: ConfigInput = {}): ResolvedConfig {
  const given: GivenValues = new Map();
  collect(typeof base === "string" ? { preset: base } : base, given);
  collect(overrides, given);

  const why: Record<string, string> = {};
  const model = fill<ModelSettings>("model", given, why, MODEL_DEFAULTS);
  const training = fill<TrainingSettings>("training", given, why, trainingDefaults(model));
  const generation = fill<GenerationConfig>("generation", given, why);
  const runtime = fill<RuntimeConfig>("runtime", given, why);
  checkTogether(model, training, given);

  return freezeDeep({
    model: deriveModel(model, why),
    training: deriveTraining(training, why),
    generation,
    runtime,
    why,
  });
}

/** Adds the settings of one source; a later source wins, but within one each parameter stands once. */
function collect(input: ConfigInput, given: GivenValues): void {
  const { preset: name, ...settings } = input as Readonly<Record<string, unknown>>;
  if (name !== undefined) collectPreset(name, given);
  const own: GivenValues = new Map();
  for (const [spelling, value] of flatten(settings)) {
    const parameter = findParameter(spelling);
    const checked = checkValue(spelling, rowOf(parameter), value);
    const before = own.get(keyOf(parameter));
    if (before !== undefined && !isEqual(before.value, checked)) {
      throw new ConfigError(
        spelling,
        `must agree with ${before.spelling} (${String(before.value)})`,
        value,
        "give one of them",
      );
    }
    own.set(keyOf(parameter), { value: checked, spelling, why: `given as ${spelling}` });
  }
  for (const [key, entry] of own) given.set(key, entry);
}

function collectPreset(name: unknown, given: GivenValues): void {
  if (typeof name !== "string") throw new ConfigError("preset", "must be a name", name);
  for (const [path, value] of flatten(preset(name))) {
    const parameter = findParameter(path);
    const spelling = toSnakeCase(parameter.name);
    given.set(keyOf(parameter), {
      value: checkValue(spelling, rowOf(parameter), value),
      spelling,
      why: `preset ${name}`,
    });
  }
}

/** Leaves of nested plain objects with their dotted paths; lists are leaves. */
function flatten(value: object, prefix = ""): [string, unknown][] {
  return Object.entries(value).flatMap(([key, child]): [string, unknown][] => {
    if (child === undefined) return [];
    if (typeof child !== "object" || child === null || Array.isArray(child)) return [[prefix + key, child]];
    return flatten(child, `${prefix}${key}.`);
  });
}

function fill<T>(
  section: Section,
  given: GivenValues,
  why: Record<string, string>,
  rules: Readonly<Record<string, ((settings: T) => unknown) | undefined>> = {},
): T {
  const parameters = listParameters().filter((parameter) => parameter.section === section);
  const settings: Record<string, unknown> = {};
  for (const parameter of parameters) {
    const entry = given.get(keyOf(parameter));
    const { default: byDefault } = rowOf(parameter);
    settings[parameter.name] = entry === undefined ? byDefault : entry.value;
    why[pathOf(parameter)] = entry?.why ?? defaultReason(rowOf(parameter));
  }
  for (const [name, rule] of Object.entries(rules)) {
    if (rule !== undefined && !given.has(keyOf({ section, name }))) settings[name] = rule(settings as T);
  }
  return settings as T;
}

function defaultReason(row: Row): string {
  const rule =
    typeof row.default === "object" && row.default !== null && "rule" in row.default ? row.default.rule : undefined;
  return rule === undefined ? `default: ${row.why}` : `default (${rule}): ${row.why}`;
}

function checkTogether(model: ModelSettings, training: TrainingSettings, given: GivenValues): void {
  const settings = { model, training };
  const broken = CROSS_RULES.find((rule) => rule.broken(settings));
  if (broken === undefined) return;
  const [section, name] = broken.parameter.split(".") as ["model" | "training", string];
  const value = (settings[section] as unknown as Readonly<Record<string, unknown>>)[name];
  const spelling = given.get(broken.parameter)?.spelling ?? toSnakeCase(name);
  throw new ConfigError(spelling, broken.rule(settings), value, broken.cure);
}

function deriveModel(model: ModelSettings, why: Record<string, string>): ModelConfig {
  const qkHeadDim = model.qkNopeHeadDim + model.qkRopeHeadDim;
  const forSoftmax = yarnMscale(model.ropeFactor, model.mscaleAllDim);
  why["model.qk_head_dim"] = "derived: qk_nope_head_dim + qk_rope_head_dim";
  why["model.softmax_scale"] = "derived: qk_head_dim^-0.5 · f(mscale_all_dim)², f(m) = 0.1·m·ln(rope_factor) + 1";
  why["model.rope_scale"] = "derived: f(mscale) / f(mscale_all_dim), f(m) = 0.1·m·ln(rope_factor) + 1";
  return {
    ...model,
    qkHeadDim,
    softmaxScale: forSoftmax ** 2 / Math.sqrt(qkHeadDim),
    ropeScale: yarnMscale(model.ropeFactor, model.mscale) / forSoftmax,
  };
}

/** `f(s, m) = 0.1·m·ln s + 1` for s > 1, else 1. **Source:** YaRN paper 3.4; deepseek-ai/DeepSeek-V3 inference/model.py. */
function yarnMscale(factor: number, mscale: number): number {
  return factor > 1 ? 0.1 * mscale * Math.log(factor) + 1 : 1;
}

function deriveTraining(training: TrainingSettings, why: Record<string, string>): TrainingConfig {
  why["training.grad_accum_steps"] = "derived: batch_size / micro_batch_size";
  why["training.tokens_per_step"] = "derived: batch_size · seq_len";
  return {
    ...training,
    gradAccumSteps: training.batchSize / training.microBatchSize,
    tokensPerStep: training.batchSize * training.seqLen,
  };
}

function keyOf({ section, name }: ParameterName): string {
  return `${section}.${name}`;
}

function pathOf({ section, name }: ParameterName): string {
  return `${section}.${toSnakeCase(name)}`;
}

function isEqual(a: Value, b: Value): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function freezeDeep<T extends object>(value: T): T {
  for (const child of Object.values(value)) {
    if (typeof child === "object" && child !== null) freezeDeep(child);
  }
  return Object.freeze(value);
}
