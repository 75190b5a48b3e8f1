/** `fathom inspect`: what a checkpoint holds and whether it is what its model must have, from headers alone. */

import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { Command } from "commander";
import { countElements, type TensorCheck } from "../blueprint/index.ts";
import { checkStored, readModel } from "../blueprint/node.ts";
import { presetNames } from "../config/index.ts";
import { ConfigError, FathomError, FormatError } from "../core/errors.ts";
import type { StoredTensor } from "../formats/index.ts";
import { nodeFiles, openGguf, openSafetensors } from "../formats/node.ts";
import { compare, differenceLines } from "./inspect-diff.ts";
import { metadataEntries, nameLines, patternOf, plain, rangeOf, shortValue, type Inspected } from "./inspect-text.ts";
import { digits, print, printJson } from "./output.ts";
import { formatTable } from "./table.ts";

interface InspectOptions {
  readonly diff?: string;
  readonly tensors?: boolean;
  readonly json?: boolean;
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
    else for (const line of differenceLines(difference)) print(line);
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
  const { name, blueprint, source } = opened;
  if (source.kind === "preset" || source.kind === "config") {
    const cure = "fathom params counts a model without its weights";
    throw new ConfigError("checkpoint", rule, path, cure);
  }
  const format = source.kind === "gguf" ? "gguf" : "safetensors";
  const { tensors, metadata } = source;
  return { name, format, tensors, metadata, blueprint, check: checkStored(opened)! };
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

/** One row each, or one for tensors that differ in the numbers of their names only. */
function tensorRows(tensors: ReadonlyMap<string, StoredTensor>, all: boolean): string[][] {
  const groups = new Map<string, { tensor: StoredTensor; names: string[]; bytes: number }>();
  for (const [name, tensor] of tensors) {
    const pattern = all ? name : patternOf(name);
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
