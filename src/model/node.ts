/** Models on the local disk: folders and GGUF files. */

import { join } from "node:path";
import { blueprint, countElements, type ParameterSpec } from "../blueprint/index.ts";
import { openModel } from "../blueprint/node.ts";
import { fromHfConfig, fromJson, modelSettings, resolveConfig, type ResolvedConfig } from "../config/index.ts";
import { bytesOf, type DType } from "../core/dtype.ts";
import { FormatError, IoError } from "../core/errors.ts";
import { readText } from "../formats/index.ts";
import { nodeFiles, openSafetensors } from "../formats/node.ts";
import { availableBytes } from "../kernels/node.ts";
import type { Scope } from "../tensor/index.ts";
import { openGgufWeights } from "./gguf-weights.ts";
import { checkMemory } from "./memory-limit.ts";
import { allocateParameters, type ParameterSet } from "./parameters.ts";
import { narrowParameters, type WeightFile } from "./weight-file.ts";
import { loadWeights, locateWeights } from "./weights.ts";

/** The name of the file in a run folder that names the newest checkpoint. */
export const LATEST = "latest";

function isGguf(path: string): boolean {
  return path.endsWith(".gguf");
}

/**
 * A run folder means its newest checkpoint; any other folder and a .gguf file mean themselves.
 * @throws IoError when it is none of them, FormatError when `latest` names no checkpoint.
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
  if (await isModel(path)) return path;
  throw new IoError(path, "must be a run folder, a model folder with config.json or a .gguf file", {
    cure: "train one with fathom train, or check the path",
  });
}

/**
 * The configuration of a model: the whole of it in fathom.json, else what config.json or the metadata of a .gguf file say.
 * @throws FormatError when a .gguf file does not hold the tensors of the model that it describes.
 */
export async function readModelConfig(path: string): Promise<ResolvedConfig> {
  if (isGguf(path)) {
    return resolveConfig({ model: modelSettings((await openModel(path)).model) });
  }
  const own = join(path, "fathom.json");
  if (await nodeFiles.isFile(own)) return fromJson(await readText(nodeFiles, own), own);
  const hf = join(path, "config.json");
  return resolveConfig({ model: fromHfConfig(await readText(nodeFiles, hf), hf) });
}

/**
 * Allocates what generation needs of a model, which is all but its MTP layers, in `scope` and fills it from a folder or a
 * .gguf file. Matrices that a folder holds in bf16, and those that a .gguf file holds in bf16 or quantised, are bf16.
 *
 * @param config - of `readModelConfig`.
 * @param memoryLimit - bytes that the weights may take; by default what is available.
 * @throws MemoryError before anything is allocated when the weights need more.
 */
export async function loadParameters(
  scope: Scope,
  path: string,
  config: ResolvedConfig["model"],
  memoryLimit = availableBytes(),
): Promise<ParameterSet> {
  const weights = isGguf(path) ? await openGgufWeights(path, config) : await openFolderWeights(path, config);
  try {
    const main = { ...config, nMtpLayers: 0 };
    const dtypeOf = ({ name }: ParameterSpec): DType => (weights.narrow.has(name) ? "bf16" : scope.dtype);
    const sizes = blueprint(main).parameters.map((spec) => bytesOf(dtypeOf(spec), countElements(spec.shape)));
    checkMemory(
      path,
      sizes.reduce((sum, bytes) => sum + bytes, 0),
      memoryLimit,
    );
    const parameters = allocateParameters(scope, main, dtypeOf);
    await weights.fill(parameters);
    return parameters;
  } finally {
    await weights.close();
  }
}

async function openFolderWeights(folder: string, config: ResolvedConfig["model"]): Promise<WeightFile> {
  const reader = await openSafetensors(folder);
  try {
    const located = locateWeights(config, reader, folder).map(({ entry: { parameter, shape }, part }) => {
      const isBf16 = part !== undefined && reader.tensors.get(part.name)!.dtype === "BF16";
      return { parameter, isNarrow: shape.length > 1 && isBf16 };
    });
    return {
      narrow: narrowParameters(located),
      fill: (parameters) => loadWeights(config, parameters, reader, folder),
      close: () => reader.close(),
    };
  } catch (error) {
    await reader.close();
    throw error;
  }
}
