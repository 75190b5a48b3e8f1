/** What there is to say of a parameter: its row in words, and its value in each preset. */

import { listParameters, pathOf, rowOf, toSnakeCase, type ParameterName } from "./names.ts";
import { presetNames } from "./presets.ts";
import { valueInPreset } from "./resolve.ts";
import { isRule, LAYERS, type Layer, type Moves, type Row, type Value, type Verb } from "./row.ts";
import { readersOf } from "./usage.ts";
import { rangeText } from "./values.ts";

export interface ParameterFacts {
  readonly name: string;
  /** `section.name` in snake_case. */
  readonly path: string;
  readonly layer: Layer;
  readonly type: Row["type"];
  /** The legal values in words. */
  readonly range: string;
  readonly unit: string | null;
  /** The default, or the rule from which it follows. */
  readonly default: Value | { readonly rule: string };
  readonly why: string;
  readonly meaning: string;
  readonly moves: Moves;
  readonly realIn: Row["realIn"];
  readonly source: string;
  readonly truth: string | null;
  readonly aliases: Row["aliases"] & object;
  readonly readBy: readonly Verb[];
  /** The values that this engine carries out; null for all legal ones. */
  readonly runs: readonly Value[] | null;
  readonly presets: Readonly<Record<string, Value>>;
}

export function describeParameter(parameter: ParameterName): ParameterFacts {
  const row = rowOf(parameter);
  return {
    name: toSnakeCase(parameter.name),
    path: pathOf(parameter),
    layer: row.layer,
    type: row.type,
    range: rangeText(row),
    unit: row.unit ?? null,
    default: isRule(row.default) ? { rule: row.default.rule } : row.default,
    why: row.why,
    meaning: row.meaning,
    moves: row.moves,
    realIn: row.realIn,
    source: row.source,
    truth: row.truth ?? null,
    aliases: row.aliases ?? {},
    readBy: readersOf(parameter),
    runs: row.runs ?? null,
    presets: Object.fromEntries(presetNames().map((name) => [name, valueInPreset(name, parameter)])),
  };
}

/** All parameters by layer, in the order of their rows. */
export function parametersByLayer(): ReadonlyMap<Layer, readonly ParameterName[]> {
  const all = listParameters();
  return new Map(LAYERS.map((layer) => [layer, all.filter((parameter) => rowOf(parameter).layer === layer)]));
}
