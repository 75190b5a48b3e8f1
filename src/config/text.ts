/** The resolved configuration as text: printed, saved as JSON, hashed, compared. */

import { FormatError } from "../core/errors.ts";
import { defaultRules } from "./defaults.ts";
import { listParameters, pathOf, rowOf, toSnakeCase, type ParameterName } from "./names.ts";
import { resolveConfig, type ResolvedConfig } from "./resolve.ts";
import { isRule, SECTIONS, type Section, type Value } from "./row.ts";
import type { RunConfig } from "./rows.ts";

export function settingOf(config: RunConfig, { section, name }: ParameterName): Value {
  return (config[section] as unknown as Readonly<Record<string, Value>>)[name]!;
}

/** All settings by section in snake_case, without derived numbers. */
export function toJson(config: RunConfig): string {
  const sections = Object.fromEntries(
    SECTIONS.map((section) => {
      const own = listParameters(section);
      return [section, Object.fromEntries(own.map((p) => [toSnakeCase(p.name), settingOf(config, p)]))];
    }),
  );
  return `${JSON.stringify(sections, null, 2)}\n`;
}

/**
 * The configuration that `toJson` wrote; settings that it lacks get their defaults.
 * @throws FormatError when `text` is not a JSON object. @throws ConfigError when a setting is wrong.
 */
export function fromJson(text: string, file = "fathom.json"): ResolvedConfig {
  return resolveConfig(parseObject(text, file));
}

export function parseObject(text: string, file: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(file, `must be JSON (${(cause as Error).message})`, { cure: "correct it there" });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  const got = value === null ? "null" : Array.isArray(value) ? "a list" : typeof value;
  throw new FormatError(file, "must be a JSON object", { got, cure: 'begin with {, for example {"dim": 64}' });
}

/** One line per value with its reason, in the order of the rows, derived numbers at the end of their section. */
export function printConfig(config: ResolvedConfig): string {
  const width = Math.max(...Object.keys(config.why).map((path) => path.length));
  const lines = SECTIONS.flatMap((section) =>
    Object.entries(config[section]).map(([name, value]) => {
      const path = `${section}.${toSnakeCase(name)}`;
      return `${path.padEnd(width)}  ${JSON.stringify(value).padEnd(12)}  ${config.why[path]}`;
    }),
  );
  return `${lines.join("\n")}\n`;
}

/** Settings that differ from what they would be by default, in the order of the rows. */
export function changedSettings(config: RunConfig): ParameterName[] {
  return SECTIONS.flatMap((section) => changedIn(section, config));
}

function changedIn(section: Section, config: RunConfig): ParameterName[] {
  const parameters = listParameters(section);
  const defaults: Record<string, unknown> = {};
  for (const parameter of parameters) {
    const { default: byDefault } = rowOf(parameter);
    defaults[parameter.name] = isRule(byDefault) ? byDefault : settingOf(config, parameter);
  }
  const changed = new Set<string>();
  for (const [name, rule] of Object.entries(defaultRules(section, config))) {
    const value = settingOf(config, { section, name });
    if (!isSame(rule(defaults as never), value)) changed.add(name);
    defaults[name] = value;
  }
  return parameters.filter((parameter) => {
    const { default: byDefault } = rowOf(parameter);
    return isRule(byDefault) ? changed.has(parameter.name) : !isSame(byDefault, settingOf(config, parameter));
  });
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/**
 * 16 hexadecimal digits that change with any setting that is not at its default, so that a new parameter leaves the
 * hashes of older runs as they are: 64-bit FNV-1a of the changed settings.
 */
export function configHash(config: RunConfig): string {
  return fnv1a(
    changedSettings(config)
      .map((parameter) => `${pathOf(parameter)}=${JSON.stringify(settingOf(config, parameter))}\n`)
      .join(""),
  );
}

/**
 * Whether `hash` was saved with this configuration.
 *
 * @param text - the file that the configuration was read from; the first runs hashed the whole of it.
 */
export function isHashOf(hash: string, config: RunConfig, text: string): boolean {
  return hash === configHash(config) || hash === fnv1a(text);
}

function fnv1a(text: string): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  return hash.toString(16).padStart(16, "0");
}

export interface SettingChange {
  /** `section.name` in snake_case. */
  readonly path: string;
  readonly before: Value;
  readonly after: Value;
}

/** The settings in which two configurations differ, in the order of the rows. */
export function diffConfigs(before: RunConfig, after: RunConfig): SettingChange[] {
  return listParameters()
    .map((parameter) => ({
      path: pathOf(parameter),
      before: settingOf(before, parameter),
      after: settingOf(after, parameter),
    }))
    .filter((change) => !isSame(change.before, change.after));
}
