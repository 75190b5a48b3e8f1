/**
 * From what a user wrote to numbers: fills defaults, derives, checks, freezes, and records why each value is what it
 * is. After it nobody decides again.
 */

import { ConfigError } from "../core/errors.ts";
import { CROSS_RULES } from "./cross-rules.ts";
import { defaultRules, FILL_ORDER } from "./defaults.ts";
import {
  findParameter,
  hasParameter,
  listParameters,
  pathOf,
  rowOf,
  toSnakeCase,
  type ParameterName,
} from "./names.ts";
import { preset, type RunSettings } from "./presets.ts";
import { isRule, SECTIONS, type Row, type Section, type Value } from "./row.ts";
import type { AllSettings, ModelConfig, ModelSettings, RunConfig, TrainingConfig, TrainingSettings } from "./rows.ts";
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
  return resolveLayers([typeof base === "string" ? { preset: base } : base, overrides]);
}

/** The configuration of several sources, of which a later one wins. @throws ConfigError as `resolveConfig` does. */
export function resolveLayers(layers: readonly ConfigInput[]): ResolvedConfig {
  const given: GivenValues = new Map();
  for (const layer of layers) collect(layer, given);

  const why: Record<string, string> = {};
  const all = {} as { -readonly [S in Section]: AllSettings[S] };
  for (const section of FILL_ORDER) Object.assign(all, { [section]: fill(section, all, given, why) });
  checkTogether(all, given);

  return freezeDeep({
    ...all,
    model: deriveModel(all.model, why),
    training: deriveTraining(all.training, why),
    why,
  });
}

/** What is wrong with the settings of one source, each taken by itself. */
export function settingProblems(input: ConfigInput): ConfigError[] {
  const { preset: name, ...settings } = input as Readonly<Record<string, unknown>>;
  const checks = [
    ...(name === undefined ? [] : [() => collectPreset(name, new Map())]),
    ...flatten(settings).map(
      ([spelling, value]) =>
        () =>
          checkValue(spelling, rowOf(findParameter(spelling)), value),
    ),
  ];
  return checks.flatMap((check) => {
    try {
      check();
      return [];
    } catch (error) {
      if (error instanceof ConfigError) return [error];
      throw error;
    }
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
        `must agree with ${before.spelling} (${show(before.value)})`,
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

/** The value of a parameter in a preset; no more is filled in than it follows from. */
export function valueInPreset(name: string, parameter: ParameterName): Value {
  const { section } = parameter;
  const settings: Readonly<Partial<Record<Section, object>>> = preset(name);
  const own = (settings[section] as Readonly<Record<string, Value>> | undefined)?.[parameter.name];
  const { default: byDefault } = rowOf(parameter);
  if (own !== undefined) return own;
  if (!isRule(byDefault)) return byDefault;
  const given: GivenValues = new Map();
  collectPreset(name, given);
  const all = {} as { -readonly [S in Section]: AllSettings[S] };
  for (const filled of FILL_ORDER.slice(0, FILL_ORDER.indexOf(section) + 1)) {
    Object.assign(all, { [filled]: fill(filled, all, given, {}) });
  }
  return (all[section] as unknown as Readonly<Record<string, Value>>)[parameter.name]!;
}

/** Leaves of nested plain objects with their dotted paths; lists are leaves, and so are the shares of a mixture. */
function flatten(value: object, prefix = ""): [string, unknown][] {
  return Object.entries(value).flatMap(([key, child]): [string, unknown][] => {
    // A section whose lines are all comments is null in YAML.
    const isEmptySection = child === null && prefix === "" && (SECTIONS as readonly string[]).includes(key);
    if (child === undefined || isEmptySection) return [];
    const path = prefix + key;
    if (typeof child !== "object" || child === null || Array.isArray(child) || isWeights(path)) return [[path, child]];
    return flatten(child, `${path}.`);
  });
}

function isWeights(path: string): boolean {
  return hasParameter(path) && rowOf(findParameter(path)).type === "weights";
}

function fill(section: Section, all: AllSettings, given: GivenValues, why: Record<string, string>): unknown {
  const parameters = listParameters(section);
  const settings: Record<string, unknown> = {};
  for (const parameter of parameters) {
    const entry = given.get(keyOf(parameter));
    const row = rowOf(parameter);
    settings[parameter.name] = entry === undefined ? row.default : entry.value;
    why[pathOf(parameter)] = entry?.why ?? defaultReason(row);
  }
  for (const [name, rule] of Object.entries(defaultRules(section, all))) {
    if (!given.has(keyOf({ section, name }))) settings[name] = rule(settings as never);
  }
  return settings;
}

function defaultReason({ default: byDefault, why }: Row): string {
  return isRule(byDefault) ? `default (${byDefault.rule}): ${why}` : `default: ${why}`;
}

function checkTogether(settings: AllSettings, given: GivenValues): void {
  const broken = CROSS_RULES.find((rule) => rule.broken(settings));
  if (broken === undefined) return;
  const [section, name] = broken.parameter.split(".") as [Section, string];
  const value = (settings[section] as Readonly<Record<string, unknown>>)[name];
  const spelling = given.get(broken.parameter)?.spelling ?? toSnakeCase(name);
  const cure = typeof broken.cure === "string" ? broken.cure : broken.cure(settings);
  throw new ConfigError(spelling, broken.rule(settings), value, cure);
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
  why["training.tokens_per_step"] = "derived: batch_size · seq_len";
  return { ...training, tokensPerStep: training.batchSize * training.seqLen };
}

function keyOf({ section, name }: ParameterName): string {
  return `${section}.${name}`;
}

function show(value: Value): string {
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
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
