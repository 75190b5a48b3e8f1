/** What two checkpoints have differently: tensors by their names, or parameters where they are of two formats. */

import {
  metadataEntries,
  nameLines,
  patternOf,
  rangeOf,
  shortValue,
  type Inspected,
  type Metadata,
} from "./inspect-text.ts";
import { digits } from "./output.ts";
import { storedParameters } from "./stored-parameters.ts";

export interface Difference {
  /** Whose names are compared. */
  readonly compared: "tensors" | "parameters";
  /** Empty between two formats, whose keys have nothing in common. */
  readonly metadata: readonly { key: string; before: unknown; after: unknown }[];
  readonly removed: readonly string[];
  readonly added: readonly string[];
  readonly changed: readonly { name: string; before: string; after: string }[];
  readonly equal: number;
}

/** Types and shapes by name. */
type Kinds = ReadonlyMap<string, string>;

/** Between a folder and a GGUF file of known models each parameter is compared, whatever its tensors are called. */
export function compare(before: Inspected, after: Inspected): Difference {
  const isAcross = before.format !== after.format;
  const [old, now] = isAcross ? [parameterKinds(before), parameterKinds(after)] : [];
  if (old !== undefined && now !== undefined)
    return { compared: "parameters", metadata: [], ...compareKinds(old, now) };
  const metadata = isAcross ? [] : compareMetadata(before.metadata, after.metadata);
  return { compared: "tensors", metadata, ...compareKinds(tensorKinds(before), tensorKinds(after)) };
}

function tensorKinds({ tensors }: Inspected): Kinds {
  return new Map([...tensors].map(([name, { dtype, shape }]) => [name, `${dtype} [${shape.join(", ")}]`]));
}

function parameterKinds({ blueprint, format, tensors }: Inspected): Kinds | undefined {
  if (blueprint === undefined) return undefined;
  const parameters = storedParameters(blueprint, format, tensors);
  return new Map([...parameters].map(([name, { dtypes, shape }]) => [name, `${dtypes.join(" and ")} ${shape}`]));
}

function compareKinds(before: Kinds, after: Kinds): Omit<Difference, "compared" | "metadata"> {
  const both = [...after].filter(([name]) => before.has(name));
  const changed = both.filter(([name, kind]) => before.get(name) !== kind);
  return {
    removed: [...before.keys()].filter((name) => !after.has(name)),
    added: [...after.keys()].filter((name) => !before.has(name)),
    changed: changed.map(([name, kind]) => ({ name, before: before.get(name)!, after: kind })),
    equal: both.length - changed.length,
  };
}

function compareMetadata(before: Metadata, after: Metadata): Difference["metadata"] {
  const [old, now] = [new Map(metadataEntries(before)), new Map(metadataEntries(after))];
  return [...new Set([...old.keys(), ...now.keys()])]
    .map((key) => ({ key, before: old.get(key) ?? null, after: now.get(key) ?? null }))
    .filter((entry) => JSON.stringify(entry.before) !== JSON.stringify(entry.after));
}

export function differenceLines({ compared, metadata, removed, added, changed, equal }: Difference): string[] {
  const keys = metadata.map(({ key, before, after }) => `${key}: ${shortValue(before)} → ${shortValue(after)}`);
  const bare = (names: readonly string[]): Line[] => names.map((name) => ({ name, text: "" }));
  const kinds = changed.map(({ name, before, after }) => ({ name, text: `: ${before} → ${after}` }));
  return [
    ...nameLines("metadata", keys),
    ...groupedLines("removed", bare(removed)),
    ...groupedLines("added", bare(added)),
    ...groupedLines("changed", kinds),
    `${compared} equal in name, type and shape: ${digits(equal)}; their values are not compared`,
  ];
}

interface Line {
  readonly name: string;
  readonly text: string;
}

/** One line for names that differ in their numbers only, with the same text behind them. */
function groupedLines(title: string, lines: readonly Line[]): string[] {
  const groups = new Map<string, Line[]>();
  for (const line of lines) {
    const key = patternOf(line.name) + line.text;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [line]);
    else group.push(line);
  }
  const shown = [...groups.values()].map((group) => {
    const range = rangeOf(group.map(({ name }) => name));
    return `${range}${group.length > 1 ? ` × ${digits(group.length)}` : ""}${group[0]!.text}`;
  });
  return nameLines(title, shown, lines.length);
}
