/**
 * Spellings. Inside, parameters are camelCase; in files and on the command line they are snake_case; and every alias
 * of a row is understood on input. The change of case happens only here.
 */

import { ConfigError, nearest } from "../core/errors.ts";
import { SECTIONS, type Aliases, type Row, type Section } from "./row.ts";
import { ROWS } from "./rows.ts";

export interface ParameterName {
  readonly section: Section;
  readonly name: string;
}

export function toSnakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** The row of a parameter. */
export function rowOf({ section, name }: ParameterName): Row {
  return (ROWS[section] as Readonly<Record<string, Row>>)[name]!;
}

/** All parameters in the order of their rows. */
export function listParameters(): ParameterName[] {
  return SECTIONS.flatMap((section) => Object.keys(ROWS[section]).map((name) => ({ section, name })));
}

/** Every spelling of a parameter: its own name in snake_case first, then its aliases. */
export function spellingsOf(parameter: ParameterName): string[] {
  const { hf, gguf, megatron, other = [] }: Aliases = rowOf(parameter).aliases ?? {};
  const aliases = [hf, gguf, megatron, ...other].filter((alias) => alias !== undefined);
  return [...new Set([toSnakeCase(parameter.name), ...aliases])];
}

/** One form for hidden_size, hiddenSize, --hidden-size and deepseek2.hidden_size. */
function normalise(spelling: string): string {
  return toSnakeCase(spelling.replace(/^--/, ""))
    .replaceAll("-", "_")
    .replace(/^deepseek2\./, "");
}

let known: Map<string, ParameterName[]> | undefined;

function knownSpellings(): Map<string, ParameterName[]> {
  if (known !== undefined) return known;
  known = new Map();
  for (const parameter of listParameters()) {
    for (const spelling of new Set(spellingsOf(parameter).map(normalise))) {
      known.set(spelling, [...(known.get(spelling) ?? []), parameter]);
    }
  }
  return known;
}

/**
 * The parameter that a spelling means, with or without its section in front (`lr`, `training.learning_rate`).
 * @throws ConfigError when no parameter has it, or several have and no section says which.
 */
export function findParameter(spelling: string): ParameterName {
  const [head = "", ...rest] = spelling.split(".");
  const section = SECTIONS.find((s) => s === head && rest.length > 0);
  const spellings = knownSpellings();
  const found = (spellings.get(normalise(section === undefined ? spelling : rest.join("."))) ?? []).filter(
    (parameter) => section === undefined || parameter.section === section,
  );
  if (found.length === 1) return found[0]!;
  if (found.length > 1) {
    const full = found.map((parameter) => `${parameter.section}.${toSnakeCase(parameter.name)}`);
    throw new ConfigError(spelling, "must name one parameter", undefined, `write ${full.join(" or ")}`);
  }
  throw unknownParameter(spelling, section);
}

function unknownParameter(spelling: string, section: Section | undefined): ConfigError {
  const bare = normalise(section === undefined ? spelling : spelling.slice(section.length + 1));
  const elsewhere = knownSpellings().get(bare)?.[0];
  if (elsewhere !== undefined) {
    const cure = `write ${elsewhere.section}.${toSnakeCase(elsewhere.name)}`;
    return new ConfigError(spelling, `must be a parameter of ${section}`, undefined, cure);
  }
  const near = nearest(bare, namesOf(section));
  const cure = near === undefined ? "fathom.json of any saved run lists them all" : `did you mean ${near}?`;
  return new ConfigError(spelling, "must be a known parameter", undefined, cure);
}

function namesOf(section: Section | undefined): string[] {
  return [...knownSpellings()]
    .filter(([, list]) => section === undefined || list.some((p) => p.section === section))
    .map(([spelling]) => spelling);
}
