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

const BY_SECTION = Object.fromEntries(
  SECTIONS.map((section) => [section, Object.keys(ROWS[section]).map((name) => ({ section, name }))]),
) as unknown as Readonly<Record<Section, readonly ParameterName[]>>;

const ALL: readonly ParameterName[] = SECTIONS.flatMap((section) => BY_SECTION[section]);

/** All parameters, or those of one section, in the order of their rows. */
export function listParameters(section?: Section): readonly ParameterName[] {
  return section === undefined ? ALL : BY_SECTION[section];
}

/** Every spelling of a parameter: its own name in snake_case first, then its aliases. */
export function spellingsOf(parameter: ParameterName): string[] {
  const { demo, hf, gguf, megatron, articles = [], other = [] }: Aliases = rowOf(parameter).aliases ?? {};
  const aliases = [demo, hf, gguf, megatron, ...articles, ...other].filter((alias) => alias !== undefined);
  return [...new Set([toSnakeCase(parameter.name), ...aliases])];
}

/** `section.name` in snake_case. */
export function pathOf({ section, name }: ParameterName): string {
  const key = `${section}.${name}`;
  const known = paths.get(key) ?? `${section}.${toSnakeCase(name)}`;
  paths.set(key, known);
  return known;
}

const paths = new Map<string, string>();

/** One form for hidden_size, hiddenSize, --hidden-size and deepseek2.hidden_size. */
function normalise(spelling: string): string {
  return toSnakeCase(spelling.replace(/^--/, ""))
    .replaceAll(/[-\s]+/g, "_")
    .replace(/^_(?=.)/, "")
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
  if (spelling.trim() === "") {
    throw new ConfigError("parameter", "must be a name", spelling, "fathom explain lists them all");
  }
  const { section, found } = candidates(spelling);
  if (found.length === 1) return found[0]!;
  if (found.length > 1) {
    const full = found.map(pathOf);
    throw new ConfigError(spelling, "must name one parameter", undefined, `write ${full.join(" or ")}`);
  }
  throw unknownParameter(spelling, section);
}

function candidates(spelling: string): { section: Section | undefined; found: ParameterName[] } {
  const [head = "", ...rest] = spelling.split(".");
  const section = SECTIONS.find((s) => s === head && rest.length > 0);
  const all = knownSpellings().get(normalise(section === undefined ? spelling : rest.join("."))) ?? [];
  return { section, found: section === undefined ? all : all.filter((parameter) => parameter.section === section) };
}

/** Whether a spelling names one parameter, alone or with its section in front. */
export function hasParameter(spelling: string): boolean {
  return candidates(spelling).found.length === 1;
}

function unknownParameter(spelling: string, section: Section | undefined): ConfigError {
  const bare = normalise(section === undefined ? spelling : spelling.slice(section.length + 1));
  const elsewhere = knownSpellings().get(bare)?.[0];
  if (elsewhere !== undefined) {
    const cure = `write ${pathOf(elsewhere)}`;
    return new ConfigError(spelling, `must be a parameter of ${section}`, undefined, cure);
  }
  const cure = suggestion(bare, section);
  return new ConfigError(spelling, "must be a known parameter", undefined, notReal(bare) ?? cure);
}

const MOST_SUGGESTED = 4;

/** Parameters with all words of a spelling (`qk rope`), else its nearest misspelling, else those that share a word. */
function suggestion(bare: string, section: Section | undefined): string {
  const near = nearest(bare, namesOf(section));
  const misspelt = near === undefined ? [] : [near];
  const words = bare.split("_").filter((word) => word !== "");
  for (const meant of [havingWords(words, "every", section), misspelt, havingWords(words, "some", section)]) {
    if (meant.length > 0) return `did you mean ${meant.slice(0, MOST_SUGGESTED).join(" or ")}?`;
  }
  return "fathom explain lists them all";
}

/** Own names of the parameters with these words in a spelling, the shortest first. */
function havingWords(words: readonly string[], how: "every" | "some", section: Section | undefined): string[] {
  if (words.length === 0) return [];
  const found = [...knownSpellings()].flatMap(([spelling, parameters]) => {
    const own = new Set(spelling.split(/[_.]/));
    const holds = words[how]((word) => own.has(word));
    return holds ? parameters.filter((parameter) => section === undefined || parameter.section === section) : [];
  });
  return [...new Set(found.map(({ name }) => toSnakeCase(name)))].toSorted((a, b) => a.length - b.length);
}

/** Names that articles give and that set nothing in any model or engine, with what is true instead. */
const NOT_REAL: Readonly<Record<string, string>> = {
  text_encoder_weight: "no DeepSeek model weighs encoders; image_gate scales the embeddings of images",
  cuda_launch_blocking: "it is a switch for debugging that makes every kernel wait; leave it out",
  allow_tf32: "it changes f32 products on some GPUs only; precision_recipe bf16 is faster",
  residual_compression: "it does not exist; compression_ratio is the bottleneck that articles mean",
};

function notReal(spelling: string): string | undefined {
  const plain = spelling.replaceAll("_", "");
  return Object.entries(NOT_REAL).find(([name]) => name.replaceAll("_", "") === plain)?.[1];
}

function namesOf(section: Section | undefined): string[] {
  return [...knownSpellings()]
    .filter(([, list]) => section === undefined || list.some((p) => p.section === section))
    .map(([spelling]) => spelling);
}
