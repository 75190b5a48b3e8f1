/**
 * What a command's MODEL means: a preset's name, a `config.json`, a checkpoint folder or a `.gguf` file. Only
 * configurations and headers are read, never a weight.
 */

import { stat } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import {
  fromGguf,
  fromHfConfig,
  preset,
  presetCure,
  presetNames,
  resolveConfig,
  type ModelConfig,
} from "../config/index.ts";
import { ConfigError, FormatError, UnsupportedError } from "../core/errors.ts";
import { readText, type GgufValue, type StoredTensor } from "../formats/index.ts";
import { nodeFiles, openGguf, openSafetensors } from "../formats/node.ts";
import { blueprint, type Blueprint } from "./blueprint.ts";
import { checkpointCopies, releasedGroups, releasedTensors } from "./checkpoint-names.ts";
import { readFolderConfig } from "./folder-config.ts";
import { withFusedExperts } from "./fused-experts.ts";
import { ggufNames, isOptionalInGguf } from "./gguf-names.ts";
import { checkTensors, type TensorCheck } from "./tensor-check.ts";
import { compareWithReleased } from "./tensor-groups.ts";

type Tensors = ReadonlyMap<string, StoredTensor>;

/** Where an open model came from; a checkpoint folder and a GGUF bring the tensors that their headers list. */
export type ModelSource =
  | { readonly kind: "preset" }
  | { readonly kind: "config"; readonly path: string }
  | {
      readonly kind: "folder";
      readonly path: string;
      readonly tensors: Tensors;
      readonly metadata: Readonly<Record<string, string>>;
    }
  | {
      readonly kind: "gguf";
      readonly path: string;
      readonly tensors: Tensors;
      readonly metadata: ReadonlyMap<string, GgufValue>;
    };

export interface OpenedModel {
  /** The preset's name, or the name of the folder or file. */
  readonly name: string;
  readonly model: ModelConfig;
  readonly blueprint: Blueprint;
  readonly source: ModelSource;
}

export interface CheckedModel extends OpenedModel {
  /** Whether its files hold the tensors of the released checkpoint in their types: what is counted of that holds for them. */
  readonly isReleased: boolean;
}

/** Pickles run code when they are loaded; what they hold is not even read. */
const PICKLES = new Set([".bin", ".pt", ".pth", ".ckpt", ".pkl"]);
const CONFIG = "config.json";

/**
 * The model that a command line names, its tensors checked by name and shape where it is a checkpoint.
 *
 * @param model - preset name, path of a config.json, of a checkpoint folder (a run folder means its newest one), or of
 * a .gguf file. A folder with a config.json alone means that file.
 * @throws ConfigError for an unknown name or another architecture. @throws FormatError for a malformed file, or tensors
 * that are not the model's. @throws UnsupportedError for a pickle. @throws IoError when a file cannot be read.
 */
export async function openModel(model: string): Promise<CheckedModel> {
  const opened = await readModel(model);
  const check = checkStored(opened);
  if (check !== undefined) refuseOthers(opened, check);
  return { ...opened, isReleased: check?.isReleased ?? false };
}

/** `openModel` without the check of tensors. */
export async function readModel(model: string): Promise<OpenedModel> {
  if (presetNames().includes(model)) {
    return opened(model, resolveConfig({ model: preset(model).model ?? {} }).model, { kind: "preset" });
  }
  const found = await stat(model).catch(() => undefined);
  if (found === undefined) throw unknownModel(model);
  if (found.isDirectory()) return readFolder(await newestCheckpoint(model));
  refusePickle(model);
  if (extname(model) === ".gguf") return readGguf(model);
  if (extname(model) === ".json") {
    const config = resolveConfig({ model: fromHfConfig(await readText(nodeFiles, model), model) });
    return opened(basename(model), config.model, { kind: "config", path: model });
  }
  throw new UnsupportedError("model", "must be a model", model, [
    "a preset",
    CONFIG,
    "a checkpoint folder",
    "a .gguf file",
  ]);
}

/** What a checkpoint lacks and has too much; undefined for a preset or a configuration. */
export function checkStored({ blueprint: plan, source }: OpenedModel): TensorCheck | undefined {
  switch (source.kind) {
    case "preset":
    case "config":
      return undefined;
    case "folder": {
      const { sameTensors, sameTypes } = compareWithReleased(releasedGroups(plan), source.tensors);
      if (sameTensors) return { missing: [], unexpected: [], mismatched: [], isReleased: sameTypes };
      // MTP layers may hold copies of embedding and head.
      const copies = new Set(checkpointCopies(plan).map(({ name }) => name));
      return checkTensors(
        () => withFusedExperts(plan, releasedTensors(plan), source.tensors),
        source.tensors,
        (name) => copies.has(name) || isInt8Scale(name, source.tensors),
      );
    }
    case "gguf": {
      const splitKvB = source.tensors.has("blk.0.attn_k_b.weight");
      return checkTensors(() => ggufNames(plan, { splitKvB }), source.tensors, isOptionalInGguf);
    }
    default:
      return source satisfies never;
  }
}

/** Any matrix may be stored as int8 with a scale for each row beside it. */
function isInt8Scale(name: string, tensors: Tensors): boolean {
  const weight = tensors.get(name.replace(/_scale$/, ""));
  return name.endsWith("_scale") && weight?.dtype === "I8" && weight.shape[0] === tensors.get(name)?.shape[0];
}

function opened(name: string, model: ModelConfig, source: ModelSource): OpenedModel {
  return { name, model, blueprint: blueprint(model), source };
}

function unknownModel(model: string): ConfigError {
  const rule = "must be a preset, or the path of a config.json, a checkpoint folder or a .gguf file";
  return new ConfigError("model", rule, model, presetCure(model));
}

function refusePickle(path: string): void {
  if (!PICKLES.has(extname(path))) return;
  throw new UnsupportedError(
    path,
    "must not be a pickle, which can run any code when it is loaded",
    extname(path),
    ["safetensors", "gguf"],
    "convert it where you trust it: in Python, save_file(torch.load(path, weights_only=True), ...) of safetensors.torch",
  );
}

/** @throws UnsupportedError when a file is a pickle, or the only weights of a folder are. */
export async function refusePickles(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() === true) await hasWeights(path);
  else if (found !== undefined) refusePickle(path);
}

/** A run folder names its newest checkpoint in the file `latest`. */
async function newestCheckpoint(path: string): Promise<string> {
  const latest = join(path, "latest");
  if (!(await nodeFiles.isFile(latest))) return path;
  const name = (await readText(nodeFiles, latest)).trim();
  if (await nodeFiles.isFile(join(path, name, CONFIG))) return join(path, name);
  const cure = "write into it the name of a checkpoint that is there";
  throw new FormatError(latest, "must name a checkpoint beside it", { got: name, cure });
}

async function readFolder(path: string): Promise<OpenedModel> {
  const { model } = await readFolderConfig(path);
  const name = basename(path);
  if (!(await hasWeights(path))) return opened(name, model, { kind: "config", path: join(path, CONFIG) });
  const reader = await openSafetensors(path);
  await reader.close();
  const { tensors, metadata } = reader;
  return opened(name, model, { kind: "folder", path, tensors, metadata });
}

/** @throws UnsupportedError when the only weights are pickles. */
async function hasWeights(path: string): Promise<boolean> {
  const names = await nodeFiles.list(path);
  if (names.some((name) => /^model\.safetensors(\.index\.json)?$/.test(name))) return true;
  const pickle = names.find((name) => PICKLES.has(extname(name)));
  if (pickle !== undefined) refusePickle(join(path, pickle));
  return false;
}

async function readGguf(path: string): Promise<OpenedModel> {
  const reader = await openGguf(path);
  await reader.close();
  const { tensors, metadata } = reader;
  const plain = new Map([...metadata].map(([key, entry]) => [key, entry.type === "list" ? entry.values : entry.value]));
  const settings = fromGguf({ file: path, metadata: plain, shapeOf: (name) => tensors.get(name)?.shape });
  const name = basename(path, ".gguf");
  return opened(name, resolveConfig({ model: settings }).model, { kind: "gguf", path, tensors, metadata });
}

/** @throws FormatError that names the first tensor that is not the model's. */
function refuseOthers({ source }: OpenedModel, { missing, unexpected, mismatched }: TensorCheck): void {
  const path = "path" in source ? source.path : "";
  const [wrong] = mismatched;
  const cure = "fathom inspect lists all that is missing, unexpected or of another shape";
  if (wrong !== undefined) {
    throw new FormatError(path, `must hold ${wrong.name} as [${wrong.expected.join(", ")}]`, { got: wrong.got, cure });
  }
  if (missing.length > 0) {
    throw new FormatError(path, `must hold ${missing[0]!} (one of ${missing.length} that are missing)`, { cure });
  }
  if (unexpected.length > 0) {
    const rule = `must hold the model's tensors only, not ${unexpected[0]!} (one of ${unexpected.length})`;
    throw new FormatError(path, rule, { cure });
  }
}
