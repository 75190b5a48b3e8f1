/**
 * Whether a setting acts: which verbs read it, which values the engine carries out, and which other setting it waits
 * for. Nothing that a user sets is passed over in silence.
 */

import { UnsupportedError } from "../core/errors.ts";
import { IDLE_RULES } from "./idle-rules.ts";
import { listParameters, pathOf, rowOf, toSnakeCase, type ParameterName } from "./names.ts";
import type { ResolvedConfig } from "./resolve.ts";
import type { Section, Value, Verb } from "./row.ts";
import type { RunConfig } from "./rows.ts";
import { diffConfigs, settingOf } from "./text.ts";

const READERS: Readonly<Record<Section, readonly Verb[]>> = {
  model: ["params", "plan", "advise", "train", "generate"],
  training: ["plan", "advise", "train"],
  data: [],
  adapter: [],
  distillation: [],
  alignment: [],
  quantization: [],
  parallel: ["plan", "advise"],
  generation: ["train", "generate"],
  serving: [],
  runtime: ["train", "generate"],
  hardware: ["plan", "advise"],
  tuning: [],
};

/** The sections in which a value that the engine does not carry out would change what a verb makes. */
const ENGINE_SECTIONS: Readonly<Record<"train" | "generate", readonly Section[]>> = {
  train: ["model", "training", "data", "adapter", "distillation", "alignment", "parallel", "runtime"],
  generate: ["model", "generation", "runtime"],
};

/** The verbs that act on a parameter. */
export function readersOf(parameter: ParameterName): readonly Verb[] {
  return rowOf(parameter).readBy ?? READERS[parameter.section];
}

/**
 * What this engine makes of a configuration, or why not.
 * @throws UnsupportedError for the first setting whose value it does not carry out.
 */
export function checkRuns(config: ResolvedConfig, verb: "train" | "generate"): void {
  for (const parameter of ENGINE_SECTIONS[verb].flatMap((section) => listParameters(section))) {
    const { runs } = rowOf(parameter);
    const value = settingOf(config, parameter);
    if (runs === undefined || runs.some((able) => JSON.stringify(able) === JSON.stringify(value))) continue;
    const able = runs.map((item) => (typeof item === "string" ? item : JSON.stringify(item)));
    const path = pathOf(parameter);
    const origin = config.why[path]!;
    const cure = runsCure(origin, `${toSnakeCase(parameter.name)}=${able[0]}`);
    throw new UnsupportedError(path, `must be ${able.join(" or ")} in fathom ${verb}`, value, [], cure);
  }
}

/** @param origin - the reason of the value that is not carried out. */
function runsCure(origin: string, able: string): string {
  if (origin.startsWith("given as ")) return `set ${able}`;
  const rule = /^default \((.*?)\): /.exec(origin)?.[1];
  if (rule !== undefined) return `it follows from ${rule}; change these, so that ${able}`;
  return `it follows from ${origin}; take another model: this one can be counted and planned`;
}

export interface IdleSetting {
  /** `section.name` in snake_case. */
  readonly path: string;
  readonly value: Value;
  readonly reason: string;
}

/**
 * Settings that were given and that `verb` does not act on, each with the reason.
 *
 * @param before - count only what differs from this configuration, for runs that go on with a saved one.
 */
export function idleSettings(config: ResolvedConfig, verb: Verb, before?: RunConfig): IdleSetting[] {
  const changed = before === undefined ? undefined : new Set(diffConfigs(before, config).map(({ path }) => path));
  return listParameters().flatMap((parameter) => {
    const path = pathOf(parameter);
    const isGiven = changed?.has(path) ?? config.why[path]!.startsWith("given as ");
    const reason = isGiven ? idleReason(parameter, config, verb) : undefined;
    return reason === undefined ? [] : [{ path, value: settingOf(config, parameter), reason }];
  });
}

function idleReason(parameter: ParameterName, config: RunConfig, verb: Verb): string | undefined {
  if (!readersOf(parameter).includes(verb)) return `fathom ${verb} does not use it`;
  const key = `${parameter.section}.${parameter.name}`;
  return IDLE_RULES.find((rule) => rule.parameters.includes(key) && rule.idle(config))?.reason(config);
}
