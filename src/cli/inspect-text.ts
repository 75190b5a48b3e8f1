/** What `fathom inspect` has read, and how its names, values and lists are shown. */

import type { Blueprint, TensorCheck } from "../blueprint/index.ts";
import type { GgufValue, StoredTensor } from "../formats/index.ts";
import { digits } from "./output.ts";

/** Metadata of either format: texts of safetensors, typed values of GGUF. */
export type Metadata = Readonly<Record<string, string>> | ReadonlyMap<string, GgufValue>;

export interface Inspected {
  readonly name: string;
  readonly format: "safetensors" | "gguf";
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Metadata;
  /** Undefined where the model is not known. */
  readonly blueprint?: Blueprint;
  /** The tensors against the model, or why that is unknown. */
  readonly check: TensorCheck | string;
}

/** Texts as they are; a long list by its length and type. */
export function metadataEntries(metadata: Metadata): [string, unknown][] {
  if (!(metadata instanceof Map)) return Object.entries(metadata);
  return [...(metadata as ReadonlyMap<string, GgufValue>)].map(([key, entry]) => {
    if (entry.type !== "list") return [key, typeof entry.value === "bigint" ? String(entry.value) : entry.value];
    return [key, entry.values ?? { list_of: entry.of, count: entry.count }];
  });
}

const LONGEST_VALUE = 72;

export function shortValue(value: unknown): string {
  const text = typeof value === "string" ? plain(value) : JSON.stringify(value);
  return text.length <= LONGEST_VALUE ? text : `${text.slice(0, LONGEST_VALUE)}… (${text.length} characters)`;
}

/** Names come from files: control characters must not reach the terminal. */
export function plain(text: string): string {
  // oxlint-disable-next-line no-control-regex -- these are what is escaped
  return text.replaceAll(/[\u0000-\u001F\u007F-\u009F]/g, (char) => JSON.stringify(char).slice(1, -1));
}

/** What names have in common that differ in their numbers only. */
export function patternOf(name: string): string {
  return name.replaceAll(/(?<=\.)\d+(?=\.)/g, "*");
}

/** `layers.3.x` and `layers.4.x` → `layers.3–4.x`; each number from its least to its greatest. */
export function rangeOf(names: readonly string[]): string {
  if (names.length === 1) return names[0]!;
  const parts = names.map((name) => name.split("."));
  return parts[0]!
    .map((part, i) => {
      if (!/^\d+$/.test(part)) return part;
      let [least, greatest] = [Infinity, -Infinity];
      for (const name of parts)
        [least, greatest] = [Math.min(least, Number(name[i])), Math.max(greatest, Number(name[i]))];
      return least === greatest ? part : `${least}–${greatest}`;
    })
    .join(".");
}

/** The parameters of a layer, and some more. */
const MOST_NAMES = 30;

/** @param count - of what there is, where a name stands for several. */
export function nameLines(title: string, names: readonly string[], count = names.length): string[] {
  if (names.length === 0) return [];
  const shown = names.slice(0, MOST_NAMES).map((name) => `  ${plain(name)}`);
  const more = names.length - MOST_NAMES;
  return [
    `${title}: ${digits(count)}`,
    ...shown,
    ...(more > 0 ? [`  and ${digits(more)} more; --json lists all`] : []),
  ];
}
