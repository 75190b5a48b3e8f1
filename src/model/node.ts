/** Models on the local disk: folders and GGUF files. */

import { join } from "node:path";
import { blueprint } from "../blueprint/index.ts";
import { openModel, readFolderConfig, refusePickles } from "../blueprint/node.ts";
import { modelSettings, resolveConfig, type ResolvedConfig } from "../config/index.ts";
import { FormatError, IoError } from "../core/errors.ts";
import { readText } from "../formats/index.ts";
import { nodeFiles, openGguf, openSafetensors } from "../formats/node.ts";
import { availableBytes } from "../kernels/node.ts";
import type { Scope } from "../tensor/index.ts";
import { checkWeights } from "./memory-limit.ts";
import type { ModelWeights } from "./model-weights.ts";
import { folderPlaces, ggufPlaces } from "./places.ts";
import { checkRunnable } from "./runnable.ts";
import { mapWeights, storedBytes } from "./stored-weights.ts";

/** The name of the file in a run folder that names the newest checkpoint. */
export const LATEST = "latest";

function isGguf(path: string): boolean {
  return path.endsWith(".gguf");
}

/**
 * A run folder means its newest checkpoint; any other folder and a .gguf file mean themselves.
 * @throws IoError when it is none of them, UnsupportedError when its weights are pickles, FormatError when `latest` names
 * no checkpoint.
 */
export async function resolveModelFolder(path: string): Promise<string> {
  if (isGguf(path) && (await nodeFiles.isFile(path))) return path;
  const isModel = (folder: string): Promise<boolean> => nodeFiles.isFile(join(folder, "config.json"));
  const latest = join(path, LATEST);
  if (await nodeFiles.isFile(latest)) {
    const name = (await readText(nodeFiles, latest)).trim();
    if (await isModel(join(path, name))) return join(path, name);
    const cure = "write into it the name of a checkpoint that is there";
    throw new FormatError(latest, "must name a checkpoint beside it", { got: name, cure });
  }
  await refusePickles(path);
  if (await isModel(path)) return path;
  throw new IoError(path, "must be a run folder, a model folder with config.json or a .gguf file", {
    cure: "train one with fathom train, or check the path",
  });
}

/**
 * The configuration of a model: the whole of it in fathom.json, else what config.json or the metadata of a .gguf file say.
 * @param gemmImpl - in place of the one that it says.
 * @throws FormatError when a .gguf file does not hold the tensors of the model that it describes.
 */
export async function readModelConfig(
  path: string,
  gemmImpl?: ResolvedConfig["runtime"]["gemmImpl"],
): Promise<ResolvedConfig> {
  const config = await readStoredConfig(path);
  return gemmImpl === undefined ? config : { ...config, runtime: { ...config.runtime, gemmImpl } };
}

async function readStoredConfig(path: string): Promise<ResolvedConfig> {
  if (isGguf(path)) {
    const { model } = await openModel(path);
    // Files of models with plain heads hold queries and keys as that rotation needs them; the others have no other one.
    return resolveConfig({ model: modelSettings({ ...model, ropeInterleave: true }) });
  }
  return await readFolderConfig(path);
}

/**
 * What generation needs of a model, which is all but its MTP layers, in the type in which a folder or a .gguf file holds
 * it: mapped where the backend can map files, else copied. The files must not change while `scope` lives.
 *
 * @param config - of `readModelConfig`.
 * @param memoryLimit - bytes that the weights may take; by default what is available.
 * @throws MemoryError before anything is allocated when the weights need more; FormatError when they are not the model's;
 * UnsupportedError for a model that does not run here, or a type that does not load.
 */
export async function openWeights(
  scope: Scope,
  path: string,
  config: ResolvedConfig["model"],
  memoryLimit = availableBytes(),
): Promise<ModelWeights> {
  checkRunnable(config);
  const main = { ...config, nMtpLayers: 0 };
  const open = isGguf(path) ? await openGguf(path) : await openSafetensors(path);
  try {
    const used = new Set(blueprint(main).parameters.map(({ name }) => name));
    const places = isGguf(path) ? ggufPlaces(main, open) : folderPlaces(config, open, path, (name) => used.has(name));
    checkWeights({ place: path, limit: memoryLimit }, storedBytes(places, open));
    return await mapWeights(scope, open, places);
  } finally {
    await open.close();
  }
}
