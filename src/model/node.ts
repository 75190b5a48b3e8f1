/** Model folders on the local disk. */

import { join } from "node:path";
import { fromHfConfig, fromJson, resolveConfig, type ResolvedConfig } from "../config/index.ts";
import { FormatError, IoError } from "../core/errors.ts";
import { readText, type TensorReader } from "../formats/index.ts";
import { nodeFiles, openSafetensors } from "../formats/node.ts";
import type { Scope } from "../tensor/index.ts";
import { allocateParameters, type ParameterSet } from "./parameters.ts";
import { loadWeights, locateWeights } from "./weights.ts";

/** The name of the file in a run folder that names the newest checkpoint. */
export const LATEST = "latest";

/**
 * A run folder means its newest checkpoint; any other folder means itself.
 * @throws IoError when it is neither, FormatError when `latest` names no checkpoint.
 */
export async function resolveModelFolder(path: string): Promise<string> {
  const isModel = (folder: string): Promise<boolean> => nodeFiles.isFile(join(folder, "config.json"));
  const latest = join(path, LATEST);
  if (await nodeFiles.isFile(latest)) {
    const name = (await readText(nodeFiles, latest)).trim();
    if (await isModel(join(path, name))) return join(path, name);
    const cure = "write into it the name of a checkpoint that is there";
    throw new FormatError(latest, "must name a checkpoint beside it", { got: name, cure });
  }
  if (await isModel(path)) return path;
  throw new IoError(path, "must be a run folder or a model folder with config.json", {
    cure: "train one with fathom train, or check the path",
  });
}

/** The configuration of a model folder: the whole of it in fathom.json, else what config.json says of the model. */
export async function readModelConfig(folder: string): Promise<ResolvedConfig> {
  const own = join(folder, "fathom.json");
  if (await nodeFiles.isFile(own)) return fromJson(await readText(nodeFiles, own), own);
  const hf = join(folder, "config.json");
  return resolveConfig({ model: fromHfConfig(await readText(nodeFiles, hf), hf) });
}

/**
 * Allocates what generation needs of a model, which is all but its MTP layers, in `scope` and fills it from a folder.
 * Matrices that the folder holds in bf16 stay so.
 */
export async function loadParameters(
  scope: Scope,
  folder: string,
  config: ResolvedConfig["model"],
): Promise<ParameterSet> {
  const reader = await openSafetensors(folder);
  try {
    const narrow = narrowParameters(config, reader, folder);
    const main = { ...config, nMtpLayers: 0 };
    const parameters = allocateParameters(scope, main, ({ name }) => (narrow.has(name) ? "bf16" : scope.dtype));
    await loadWeights(config, parameters, reader, folder);
    return parameters;
  } finally {
    await reader.close();
  }
}

/** The matrices of which every tensor is stored in bf16. */
function narrowParameters(config: ResolvedConfig["model"], reader: TensorReader, folder: string): Set<string> {
  const narrow = new Set<string>();
  const others = new Set<string>();
  for (const { entry, part } of locateWeights(config, reader, folder)) {
    const isNarrow = entry.shape.length > 1 && part !== undefined && reader.tensors.get(part.name)!.dtype === "BF16";
    (isNarrow ? narrow : others).add(entry.parameter);
  }
  return new Set([...narrow].filter((name) => !others.has(name)));
}
