/** `fathom inspect`: what a checkpoint holds and whether it is what its model must have, from headers alone. */

import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { Command } from "commander";
import { countElements, type TensorCheck } from "../blueprint/index.ts";
import { checkStored, readModel } from "../blueprint/node.ts";
import { presetNames } from "../config/index.ts";
import { ConfigError, FathomError, FormatError } from "../core/errors.ts";
import type { GgufValue, StoredTensor } from "../formats/index.ts";
import { nodeFiles, openGguf, openSafetensors } from "../formats/node.ts";
import { print, printJson } from "./output.ts";
import { formatTable } from "./table.ts";

interface InspectOptions {
  readonly diff?: string;
  readonly tensors?: boolean;
  readonly json?: boolean;
}

/** Metadata of either format: texts of safetensors, typed values of GGUF. */
type Metadata = Readonly<Record<string, string>> | ReadonlyMap<string, GgufValue>;

interface Inspected {
  readonly name: string;
  readonly format: "safetensors" | "gguf";
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Metadata;
  /** The tensors against the model, or why that is unknown. */
  readonly check: TensorCheck | string;
}

export function inspectCommand(): Command {
  return new Command("inspect")
    .description("show what a checkpoint holds, from its headers alone")
    .argument("<checkpoint>", "a folder, a .safetensors file or a .gguf file")
    .option("--diff <before>", "compare with this checkpoint instead: fathom inspect --diff BEFORE AFTER")
    .option("--tensors", "list every tensor, not those of equal layers and experts together")
    .option("--json", "one JSON document on stdout")
    .action(inspect);
}

async function inspect(path: string, options: InspectOptions): Promise<void> {
  const after = await read(path);
  if (options.diff !== undefined) {
    const difference = compare(await read(options.diff), after);
    if (options.json === true) printJson(difference);
    else printDifference(difference);
  } else if (options.json === true) printJson(inspectionJson(after));
  else printInspection(after, options.tensors === true);
}

/** A checkpoint of a known model is checked; of any other the headers are shown with the reason. */
async function read(path: string): Promise<Inspected> {
  const rule = "must be the path of a folder, a .safetensors or a .gguf file with tensors";
  if (presetNames().includes(path)) {
    const cure = "a preset has no file; fathom params counts a model without its weights";
    throw new ConfigError("checkpoint", rule, path, cure);
  }
  if (!(await exists(path))) throw new ConfigError("checkpoint", rule, path, "no such file or folder");
  let opened: Awaited<ReturnType<typeof readModel>>;
  try {
    opened = await readModel(path);
  } catch (error) {
    if (!(error instanceof FathomError) || error instanceof FormatError || !(await hasTensors(path))) throw error;
    return readUnknown(path, path.endsWith(".safetensors") ? NO_CONFIG : error.message);
  }
  const { name, source } = opened;
  if (source.kind === "preset" || source.kind === "config") {
    const cure = "fathom params counts a model without its weights";
    throw new ConfigError("checkpoint", rule, path, cure);
  }
  const format = source.kind === "gguf" ? "gguf" : "safetensors";
  return { name, format, tensors: source.tensors, metadata: source.metadata, check: checkStored(opened)! };
}

const NO_CONFIG = "one .safetensors file does not say of which it is; inspect the folder with its config.json";

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function hasTensors(path: string): Promise<boolean> {
  if (/\.(safetensors|gguf|safetensors\.index\.json)$/.test(path)) return nodeFiles.isFile(path);
  const isFolder = await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
  if (!isFolder) return false;
  const names = ["model.safetensors", "model.safetensors.index.json"];
  return (await Promise.all(names.map((name) => nodeFiles.isFile(join(path, name))))).includes(true);
}

async function readUnknown(path: string, check: string): Promise<Inspected> {
  const name = basename(path);
  if (path.endsWith(".gguf")) {
    const reader = await openGguf(path);
    await reader.close();
    return { name, format: "gguf", tensors: reader.tensors, metadata: reader.metadata, check };
  }
  const reader = await openSafetensors(path);
  await reader.close();
  return { name, format: "safetensors", tensors: reader.tensors, metadata: reader.metadata, check };
}

interface TypeCount {
  readonly tensors: number;
  readonly elements: number;
  readonly bytes: number;
}

function countTypes(tensors: Iterable<StoredTensor>): Map<string, TypeCount> {
  const types = new Map<string, TypeCount>();
  for (const { dtype, shape, bytes } of tensors) {
    const before = types.get(dtype) ?? { tensors: 0, elements: 0, bytes: 0 };
    types.set(dtype, {
      tensors: before.tensors + 1,
      elements: before.elements + countElements(shape),
      bytes: before.bytes + bytes,
    });
  }
  return types;
}

/** Texts as they are; a long list by its length and type. */
function metadataEntries(metadata: Metadata): [string, unknown][] {
  if (!(metadata instanceof Map)) return Object.entries(metadata);
  return [...(metadata as ReadonlyMap<string, GgufValue>)].map(([key, entry]) => {
    if (entry.type !== "list") return [key, typeof entry.value === "bigint" ? String(entry.value) : entry.value];
    return [key, entry.values ?? { list_of: entry.of, count: entry.count }];
  });
}

function inspectionJson({ name, format, tensors, metadata, check }: Inspected): object {
  return {
    name,
    format,
    metadata: Object.fromEntries(metadataEntries(metadata)),
    by_dtype: Object.fromEntries(countTypes(tensors.values())),
    tensors: [...tensors].map(([own, tensor]) => ({ name: own, ...tensor })),
    check: typeof check === "string" ? { unknown: check } : check,
  };
}

function printInspection({ name, format, tensors, metadata, check }: Inspected, all: boolean): void {
  const files = new Set([...tensors.values()].map(({ file }) => file)).size;
  print(`${plain(name)}: ${format}, ${digits(tensors.size)} tensors in ${files} file${files === 1 ? "" : "s"}\n`);
  const types = [...countTypes(tensors.values())].map(([dtype, count]) => [
    dtype,
    digits(count.tensors),
    digits(count.elements),
    digits(count.bytes),
  ]);
  print(formatTable({ head: ["type", "tensors", "elements", "bytes"], rows: types, left: [0] }, "text"));
  const rows = metadataEntries(metadata).map(([key, value]) => [plain(key), shortValue(value)]);
  if (rows.length > 0) print(`\n${formatTable({ head: ["metadata", ""], rows, left: [0, 1] }, "text")}`);
  print(
    `\n${formatTable({ head: ["tensor", "", "type", "shape", "bytes"], rows: tensorRows(tensors, all), left: [0, 2, 3] }, "text")}\n`,
  );
  for (const line of checkLines(check)) print(line);
}

const LONGEST_VALUE = 72;

function shortValue(value: unknown): string {
  const text = typeof value === "string" ? plain(value) : JSON.stringify(value);
  return text.length <= LONGEST_VALUE ? text : `${text.slice(0, LONGEST_VALUE)}… (${text.length} characters)`;
}

/** Names come from files: control characters must not reach the terminal. */
function plain(text: string): string {
  // oxlint-disable-next-line no-control-regex -- these are what is escaped
  return text.replaceAll(/[\u0000-\u001F\u007F-\u009F]/g, (char) => JSON.stringify(char).slice(1, -1));
}

/** One row each, or one for tensors that differ in the numbers of their names only. */
function tensorRows(tensors: ReadonlyMap<string, StoredTensor>, all: boolean): string[][] {
  const groups = new Map<string, { tensor: StoredTensor; names: string[]; bytes: number }>();
  for (const [name, tensor] of tensors) {
    const pattern = all ? name : name.replaceAll(/(?<=\.)\d+(?=\.)/g, "*");
    const key = `${pattern} ${tensor.dtype} ${tensor.shape.join(",")}`;
    const group = groups.get(key) ?? { tensor, names: [], bytes: 0 };
    group.names.push(name);
    group.bytes += tensor.bytes;
    groups.set(key, group);
  }
  return [...groups.values()].map(({ tensor, names, bytes }) => [
    plain(rangeOf(names)),
    names.length === 1 ? "" : `× ${digits(names.length)}`,
    tensor.dtype,
    `[${tensor.shape.join(", ")}]`,
    digits(bytes),
  ]);
}

/** `layers.3.x` and `layers.4.x` → `layers.3–4.x`; each number from its least to its greatest. */
function rangeOf(names: readonly string[]): string {
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

const MOST_NAMES = 20;

function checkLines(check: TensorCheck | string): string[] {
  if (typeof check === "string") return [`not compared with a model: ${check}`];
  const { missing, unexpected, mismatched } = check;
  if (missing.length + unexpected.length + mismatched.length === 0)
    return ["every tensor of the model is there, and no other"];
  return [
    ...nameLines("missing", missing),
    ...nameLines("unexpected", unexpected),
    ...nameLines(
      "of another shape",
      mismatched.map(
        ({ name, expected, got }) => `${name} [${got.join(", ")}], the model has [${expected.join(", ")}]`,
      ),
    ),
  ];
}

function nameLines(title: string, names: readonly string[]): string[] {
  if (names.length === 0) return [];
  const shown = names.slice(0, MOST_NAMES).map((name) => `  ${plain(name)}`);
  const rest =
    names.length > MOST_NAMES ? [`  and ${digits(names.length - MOST_NAMES)} more; --json lists them all`] : [];
  return [`${title}: ${digits(names.length)}`, ...shown, ...rest];
}

interface Difference {
  readonly metadata: readonly { key: string; before: unknown; after: unknown }[];
  readonly removed: readonly string[];
  readonly added: readonly string[];
  readonly changed: readonly { name: string; before: string; after: string }[];
  readonly equal: number;
}

function compare(before: Inspected, after: Inspected): Difference {
  const changed: { name: string; before: string; after: string }[] = [];
  let equal = 0;
  for (const [name, tensor] of after.tensors) {
    const old = before.tensors.get(name);
    if (old === undefined) continue;
    if (kindOf(old) === kindOf(tensor)) equal++;
    else changed.push({ name, before: kindOf(old), after: kindOf(tensor) });
  }
  return {
    metadata: compareMetadata(before.metadata, after.metadata),
    removed: [...before.tensors.keys()].filter((name) => !after.tensors.has(name)),
    added: [...after.tensors.keys()].filter((name) => !before.tensors.has(name)),
    changed,
    equal,
  };
}

function kindOf({ dtype, shape }: StoredTensor): string {
  return `${dtype} [${shape.join(", ")}]`;
}

function compareMetadata(before: Metadata, after: Metadata): Difference["metadata"] {
  const [old, now] = [new Map(metadataEntries(before)), new Map(metadataEntries(after))];
  return [...new Set([...old.keys(), ...now.keys()])]
    .map((key) => ({ key, before: old.get(key) ?? null, after: now.get(key) ?? null }))
    .filter((entry) => JSON.stringify(entry.before) !== JSON.stringify(entry.after));
}

function printDifference({ metadata, removed, added, changed, equal }: Difference): void {
  const lines = [
    ...nameLines(
      "metadata",
      metadata.map(({ key, before, after }) => `${key}: ${shortValue(before)} → ${shortValue(after)}`),
    ),
    ...nameLines("removed", removed),
    ...nameLines("added", added),
    ...nameLines(
      "changed",
      changed.map(({ name, before, after }) => `${name}: ${before} → ${after}`),
    ),
    `${digits(equal)} tensors have the same name, type and shape; their values are not compared`,
  ];
  for (const line of lines) print(line);
}

function digits(count: number): string {
  return String(count).replaceAll(/\B(?=(\d{3})+$)/g, ",");
}
