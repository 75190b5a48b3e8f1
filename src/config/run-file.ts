/**
 * Run configuration files in YAML or JSON: parsed with line and column, edited in place so that everything else in the
 * file stays as it was written, and laid over what they extend. Reading files is handed in; this runs anywhere.
 */

import { isAlias, isMap, isScalar, LineCounter, parseDocument, stringify, visit, type Document, type Node } from "yaml";
import { ConfigError, FormatError } from "../core/errors.ts";
import { findParameter, hasParameter, pathOf } from "./names.ts";
import { presetNames } from "./presets.ts";
import { resolveLayers, settingProblems, type ConfigInput, type ResolvedConfig } from "./resolve.ts";

/** A run file has some hundred lines; a larger one is something else. */
const MAX_CHARACTERS = 2 ** 20;

/** Deeper chains are more likely a mistake than a family of runs. */
const MAX_FILES = 32;

interface RunFile {
  /** Path, for messages. */
  readonly file: string;
  readonly text: string;
  /** Presets and run files that this one changes, the first one lowest. */
  readonly bases: readonly string[];
  /** The settings as they stand in the file, nested, in the user's spellings. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Where a dotted path stands: `run.yaml:4:3`, or the file alone. */
  readonly placeOf: (path: string) => string;
}

interface Parsed {
  readonly document: Document.Parsed;
  readonly lines: LineCounter;
}

/**
 * The content of a run file, not yet checked against the parameters.
 * @throws FormatError with line and column for malformed text, tabs, doubled keys, anchors, tags, or several documents.
 */
function parseRunFile(text: string, file: string): RunFile {
  const { document, lines } = parse(text, file);
  const value = (document.toJS() ?? {}) as unknown;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FormatError(file, "must hold settings by name", {
      got: Array.isArray(value) ? "a list" : value,
      cure: "for example training:",
    });
  }
  const { extends: bases, ...settings } = value as Record<string, unknown>;
  const placeOf = (path: string): string => {
    const range = keyAt(document, path)?.range ?? undefined;
    return range === undefined ? file : at(file, lines, range[0]);
  };
  return { file, text, bases: basesOf(bases, placeOf("extends")), settings, placeOf };
}

function basesOf(value: unknown, place: string): string[] {
  if (value === undefined || value === null) return [];
  const list = Array.isArray(value) ? (value as unknown[]) : [value];
  for (const item of list) {
    if (typeof item === "string" && item !== "") continue;
    throw new ConfigError(`${place} extends`, "must be a preset, a file, or a list of them", item);
  }
  return list as string[];
}

function parse(text: string, file: string): Parsed {
  if (text.length > MAX_CHARACTERS) {
    const options = { got: text.length, cure: "split it with extends" };
    throw new FormatError(file, `must have at most ${MAX_CHARACTERS} characters`, options);
  }
  if (isJson(file)) checkJson(text, file);
  const lines = new LineCounter();
  const document = parseTree(text, file, lines);
  const [problem] = [...document.errors, ...document.warnings];
  if (problem !== undefined) {
    const { rule, cure = "correct it there" } = PROBLEMS[problem.code] ?? {};
    const what = problem.message.split(/ at line |[:;]? ?\n/)[0]!;
    const place = at(file, lines, problem.pos[0]);
    const got = lineAt(text, problem.pos[0]);
    throw new FormatError(place, rule ?? `must be ${isJson(file) ? "JSON" : "YAML"} (${what})`, { got, cure });
  }
  refuseIndirection(document, file, lines);
  return { document, lines };
}

const DEPTH = { rule: "must not nest so deep", cure: "settings nest two levels deep" };

/** What the parser's complaints mean here, and what to do. */
const PROBLEMS: Readonly<Record<string, { readonly rule?: string; readonly cure: string }>> = {
  TAB_AS_INDENT: { cure: "indent with spaces" },
  DUPLICATE_KEY: { cure: "write each setting once" },
  MULTIPLE_DOCS: { rule: "must be one document", cure: "one file for each, with extends" },
  TAG_RESOLVE_FAILED: { rule: "must not use tags", cure: "write the plain value" },
  RESOURCE_EXHAUSTION: DEPTH,
};

const SHOWN_CHARACTERS = 40;

/** The line of a place, cut to what a message can show. */
function lineAt(text: string, offset: number): string {
  const line = text.slice(text.lastIndexOf("\n", offset - 1) + 1).split("\n", 1)[0]!;
  return line.length <= SHOWN_CHARACTERS ? line : `${line.slice(0, SHOWN_CHARACTERS)}…`;
}

function parseTree(text: string, file: string, lines: LineCounter): Document.Parsed {
  try {
    return parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true, version: "1.2" });
  } catch (error) {
    if (error instanceof RangeError) throw new FormatError(file, DEPTH.rule, { cure: DEPTH.cure });
    throw error;
  }
}

function isJson(file: string): boolean {
  return file.toLowerCase().endsWith(".json");
}

/** YAML allows more than JSON does. */
function checkJson(text: string, file: string): void {
  try {
    JSON.parse(text);
  } catch (cause) {
    throw new FormatError(file, `must be JSON (${(cause as Error).message})`, { cure: "correct it there" });
  }
}

/** Anchors make a small text large; tags make values of unknown kinds. A run file needs neither. */
function refuseIndirection(document: Document.Parsed, file: string, lines: LineCounter): void {
  visit(document, (_, node) => {
    if (node === null) return;
    const { anchor, tag, range } = node as Partial<{ anchor: string; tag: string; range: [number, number, number] }>;
    const place = at(file, lines, range?.[0] ?? 0);
    if (isAlias(node) || anchor !== undefined) {
      throw new FormatError(place, "must not use anchors and aliases", { cure: "write the value out, or use extends" });
    }
    if (tag !== undefined)
      throw new FormatError(place, "must not use tags", { got: tag, cure: "write the plain value" });
  });
}

function at(file: string, lines: LineCounter, offset: number): string {
  const { line, col } = lines.linePos(offset);
  return `${file}:${line}:${col}`;
}

/** The key of a dotted path, whose segments may themselves hold dots. */
function keyAt(document: Document.Parsed, path: string): Node | undefined {
  return leavesOf(document.contents).find((leaf) => leaf.path === path)?.key;
}

interface Leaf {
  readonly path: string;
  readonly keys: readonly string[];
  readonly key: Node;
  readonly value: Node | null;
}

/** Every entry of nested maps, inner ones too. */
function leavesOf(node: unknown, keys: readonly string[] = []): Leaf[] {
  if (!isMap(node)) return [];
  return node.items.flatMap(({ key, value }) => {
    if (!isScalar(key)) return [];
    const own = [...keys, String(key.value)];
    return [{ path: own.join("."), keys: own, key, value: value as Node | null }, ...leavesOf(value, own)];
  });
}

/**
 * The text of a run file with one setting changed, all else as it was. Where the file has the parameter in any
 * spelling, only that value is replaced; else it is added to its section.
 *
 * @param spelling - any spelling of a parameter, or `preset` or `extends`.
 * @throws ConfigError when no parameter has this spelling. @throws FormatError when the text is malformed.
 */
export function editRunFile(text: string, file: string, spelling: string, value: unknown): string {
  const { document } = parse(text, file);
  const isTop = spelling === "preset" || spelling === "extends";
  const path = isTop ? spelling : pathOf(findParameter(spelling));
  const present = leavesOf(document.contents).find((leaf) =>
    isTop
      ? leaf.path === path
      : !isMap(leaf.value) && hasParameter(leaf.path) && pathOf(findParameter(leaf.path)) === path,
  );
  const write = isJson(file) ? (item: unknown) => JSON.stringify(item) : inYaml;
  const range = present?.value?.range ?? undefined;
  if (range !== undefined) return replaced(text, range[0], range[1], write(value));
  if (isJson(file)) return withJsonEntry(text, path.split("."), value);
  return withYamlEntry(text, document, path.split("."), value);
}

function replaced(text: string, start: number, end: number, written: string): string {
  const old = text.slice(start, end).trimEnd();
  if (old !== "") return text.slice(0, start) + written + text.slice(start + old.length);
  const behindKey = text.slice(0, start).trimEnd().length;
  return `${text.slice(0, behindKey)} ${written}${text.slice(behindKey)}`;
}

/** A value in YAML on one line. */
function inYaml(value: unknown): string {
  return stringify(value, { lineWidth: 0, collectionStyle: "flow", version: "1.2" }).trimEnd();
}

/** Adds an entry behind the last one of the innermost map that is there. */
function withYamlEntry(text: string, document: Document.Parsed, keys: readonly string[], value: unknown): string {
  let map = document.contents as Node | null;
  let depth = 0;
  for (let inner = map; depth < keys.length - 1 && isMap(inner); depth++) {
    const next = inner.get(keys[depth], true) as Node | undefined;
    if (!isMap(next)) break;
    map = inner = next;
  }
  const rest = keys.slice(depth);
  if (!isMap(map) || !map.range) return `${ended(text)}${blockEntry(rest, value, "")}`;
  if (map.flow === true) {
    const close = map.range[1] - 1;
    const before = text.slice(0, close).trimEnd();
    return `${before}${map.items.length > 0 ? ", " : ""}${flowEntry(rest, value)}${text.slice(before.length)}`;
  }
  const start = (map.items[0]!.key as Node).range![0];
  const indent = text.slice(text.lastIndexOf("\n", start - 1) + 1, start);
  const end = text.slice(0, map.range[1]).trimEnd().length;
  const lineEnd = text.indexOf("\n", end);
  const cut = lineEnd === -1 ? text.length : lineEnd + 1;
  return `${ended(text.slice(0, cut))}${blockEntry(rest, value, indent)}${text.slice(cut)}`;
}

function ended(text: string): string {
  return text === "" || text.endsWith("\n") ? text : `${text}\n`;
}

function blockEntry(keys: readonly string[], value: unknown, indent: string): string {
  return keys
    .map((key, i) => `${indent}${"  ".repeat(i)}${key}:${i === keys.length - 1 ? ` ${inYaml(value)}` : ""}\n`)
    .join("");
}

function flowEntry([key = "", ...rest]: readonly string[], value: unknown): string {
  return `${key}: ${rest.length === 0 ? inYaml(value) : `{${flowEntry(rest, value)}}`}`;
}

function withJsonEntry(text: string, keys: readonly string[], value: unknown): string {
  const root = JSON.parse(text) as Record<string, unknown>;
  let target = root;
  for (const key of keys.slice(0, -1)) target = (target[key] ??= {}) as Record<string, unknown>;
  target[keys.at(-1)!] = value;
  const indent = /\n([ \t]+)"/.exec(text)?.[1] ?? 2;
  return `${JSON.stringify(root, null, indent)}\n`;
}

/** How run files find each other: `read` gives a file's text, `resolve` the path that `to` means inside `from`. */
export interface RunFilePort {
  readonly read: (path: string) => Promise<string>;
  readonly resolve: (from: string, to: string) => string;
}

/** A link of the chain: a preset's name, or a file. */
type ChainEntry = RunFile | string;

/** A run file and all that it extends, the lowest first. */
async function readChain(path: string, port: RunFilePort, open: readonly string[]): Promise<ChainEntry[]> {
  if (open.includes(path) || open.length >= MAX_FILES) {
    const rule = open.includes(path) ? "must not come back to a file" : `must chain at most ${MAX_FILES} files`;
    throw new ConfigError("extends", rule, [...open, path].join(" → "), "take one extends out");
  }
  const own = parseRunFile(await port.read(path), path);
  const chain: ChainEntry[] = [];
  for (const base of own.bases) {
    if (presetNames().includes(base)) chain.push(base);
    else chain.push(...(await readChain(port.resolve(path, base), port, [...open, path])));
  }
  return [...chain, own];
}

/** A run file with all that it extends, read once. */
export interface OpenRunFile {
  /** Whether it names a preset, by itself or in what it extends. */
  readonly namesPreset: boolean;
  /** Whether it neither gives a setting nor extends anything. */
  readonly isEmpty: boolean;
  /** Every setting that is wrong by itself, with file, line and column; what conflicts is found by `resolve`. */
  readonly problems: () => ConfigError[];
  /**
   * The configuration, with `overrides` laid over the file and the preset `base` under it.
   * @throws ConfigError with file, line and column of a setting that is wrong.
   */
  readonly resolve: (options?: { base?: string; overrides?: ConfigInput }) => ResolvedConfig;
}

/**
 * @throws ConfigError when files extend each other in a circle. @throws FormatError when one is malformed.
 *
 * @example
 * const run = await openRunFile("run.yaml", { read: async () => "training: {lr: 1e-3}", resolve: (_, to) => to });
 * run.resolve({ base: "nano" }).training.lr; // 0.001
 */
export async function openRunFile(path: string, port: RunFilePort): Promise<OpenRunFile> {
  const chain = await readChain(path, port, []);
  const namesPreset = chain.some((entry) => typeof entry === "string" || entry.settings.preset !== undefined);
  const layers = chain.map((entry) => (typeof entry === "string" ? { preset: entry } : entry.settings));
  const resolve: OpenRunFile["resolve"] = ({ base, overrides = {} } = {}) => {
    if (namesPreset && base !== undefined) {
      throw new ConfigError("preset", `must not be given where ${path} names its own`, base, "leave one of them out");
    }
    try {
      return resolveLayers([...(base === undefined ? [] : [{ preset: base }]), ...layers, overrides]);
    } catch (error) {
      throw error instanceof ConfigError ? placed(error, chain) : error;
    }
  };
  const problems = (): ConfigError[] =>
    chain.flatMap((entry) =>
      typeof entry === "string" ? [] : settingProblems(entry.settings).map((error) => placed(error, [entry])),
    );
  const own = chain.at(-1) as RunFile;
  const isEmpty = own.bases.length === 0 && Object.keys(own.settings).length === 0;
  return { namesPreset, isEmpty, problems, resolve };
}

/** The error with the place of its setting in the last file that has it. */
function placed(error: ConfigError, chain: readonly ChainEntry[]): ConfigError {
  for (const entry of chain.toReversed()) {
    if (typeof entry === "string") continue;
    const place = entry.placeOf(error.param);
    if (place === entry.file) continue;
    return new ConfigError(`${place} ${error.param}`, error.rule, error.value, error.hint);
  }
  return error;
}
