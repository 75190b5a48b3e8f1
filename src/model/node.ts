/** Model folders on the local disk. */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fromHfConfig, fromJson, resolveConfig, type ResolvedConfig } from "../config/index.ts";
import { IoError } from "../core/errors.ts";
import { nodeFiles, openSafetensors } from "../formats/node.ts";
import type { Scope } from "../tensor/index.ts";
import { allocateParameters, type ParameterSet } from "./parameters.ts";
import { loadWeights } from "./weights.ts";

/** The name of the file in a run folder that names the newest checkpoint. */
export const LATEST = "latest";

/** A run folder means its newest checkpoint; any other folder means itself. @throws IoError when there is none. */
export async function resolveModelFolder(path: string): Promise<string> {
  if (await nodeFiles.isFile(join(path, LATEST)))
    return join(path, (await readFile(join(path, LATEST), "utf8")).trim());
  if (await nodeFiles.isFile(join(path, "config.json"))) return path;
  throw new IoError(path, "must be a run folder or a model folder with config.json", {
    cure: "train one with fathom train, or check the path",
  });
}

/** The configuration of a model folder: the whole of it in fathom.json, else what config.json says of the model. */
export async function readModelConfig(folder: string): Promise<ResolvedConfig> {
  const own = join(folder, "fathom.json");
  if (await nodeFiles.isFile(own)) return fromJson(await readFile(own, "utf8"), own);
  const hf = join(folder, "config.json");
  return resolveConfig({ model: fromHfConfig(await readFile(hf, "utf8"), hf) });
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
