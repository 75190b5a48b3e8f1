/** The configuration of a checkpoint folder. */

import { basename, dirname, join } from "node:path";
import {
  fromHfConfig,
  fromHfGeneration,
  fromJson,
  hfConfigText,
  pathOf,
  resolveConfig,
  type ModelConfig,
  type ResolvedConfig,
} from "../config/index.ts";
import { FormatError, IoError } from "../core/errors.ts";
import { readText } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";

/**
 * The whole configuration in fathom.json, else what config.json says of the model; with the generation settings of
 * generation_config.json.
 * @throws IoError without either. @throws FormatError when they contradict each other.
 */
export async function readFolderConfig(folder: string): Promise<ResolvedConfig> {
  const own = await textOf(join(folder, "fathom.json"));
  const hf = await textOf(join(folder, "config.json"));
  if (own === undefined && hf === undefined) {
    const cure = "give a folder as it is downloaded from a model hub, or a .gguf file itself";
    throw new IoError(folder, "must be a folder with config.json", { cure });
  }
  const generation = await readGeneration(folder);
  if (own === undefined) return resolveConfig({ model: fromHfConfig(hf!.text, hf!.file), generation });
  const config = fromJson(own.text, own.file);
  if (hf !== undefined) checkAgreement(hf, config.model);
  return { ...config, generation: { ...config.generation, ...generation } };
}

interface TextFile {
  readonly file: string;
  readonly text: string;
}

async function textOf(file: string): Promise<TextFile | undefined> {
  return (await nodeFiles.isFile(file)) ? { file, text: await readText(nodeFiles, file) } : undefined;
}

/** What a folder's generation_config.json asks for, if there is one. */
async function readGeneration(folder: string): Promise<ReturnType<typeof fromHfGeneration>> {
  const found = await textOf(join(folder, "generation_config.json"));
  return found === undefined ? {} : fromHfGeneration(found.text, found.file);
}

/** How weights are stored is not compared: a run trains in one type and saves in another. */
const STORAGE = new Set(["dtype", "scaleFmt"]);

/** @throws FormatError when config.json describes another model than fathom.json, as far as it describes one. */
function checkAgreement({ file, text }: TextFile, model: ModelConfig): void {
  const got = new Map(Object.entries(fromHfConfig(text, file)));
  const expected = Object.entries(fromHfConfig(hfConfigText(model, { bos: 0, eos: 0 }), file));
  for (const [key, value] of expected) {
    if (STORAGE.has(key) || JSON.stringify(got.get(key)) === JSON.stringify(value)) continue;
    const setting = pathOf({ section: "model", name: key });
    throw new FormatError(file, `must agree with fathom.json beside it: ${setting} is ${JSON.stringify(value)} there`, {
      got: got.get(key) ?? null,
      cure: `restore ${basename(file)}, or remove ${join(dirname(file), "fathom.json")} to go by it alone`,
    });
  }
}
