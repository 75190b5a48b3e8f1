/** Model folders on the local disk. */

import { join } from "node:path";
import { fromHfConfig, fromJson, resolveConfig, type ResolvedConfig } from "../config/index.ts";
import { FormatError, IoError } from "../core/errors.ts";
import { readText } from "../formats/index.ts";
import { nodeFiles, openSafetensors } from "../formats/node.ts";
import type { Scope } from "../tensor/index.ts";
import { allocateParameters, type ParameterSet } from "./parameters.ts";
import { loadWeights } from "./weights.ts";

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

/** Allocates a model's parameters in `scope` and fills them from its folder. */
export async function loadParameters(
  scope: Scope,
  folder: string,
  config: ResolvedConfig["model"],
): Promise<ParameterSet> {
  const parameters = allocateParameters(scope, config);
  const reader = await openSafetensors(folder);
  try {
    await loadWeights(scope, config, parameters, reader, folder);
  } finally {
    await reader.close();
  }
  return parameters;
}
