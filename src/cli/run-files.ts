/** Run files on the local disk. */

import { readFile, stat } from "node:fs/promises";
import { basename, dirname, extname, resolve } from "node:path";
import {
  editRunFile,
  openRunFile,
  presetCure,
  presetNames,
  resolveConfig,
  type OpenRunFile,
  type ResolvedConfig,
} from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import { readText, writeWhole } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";

/** A pipe has no size to read by: it is read to its end. */
async function read(path: string): Promise<string> {
  const isPipe = await stat(path).then(
    (found) => found.isFIFO(),
    () => false,
  );
  return isPipe ? readFile(path, "utf8") : readText(nodeFiles, path);
}

const resolvePath = (from: string, to: string): string => resolve(dirname(from), to);

/** @throws ConfigError when a word that is no path is no file either. */
export async function readRunFile(path: string): Promise<OpenRunFile> {
  const isWord = basename(path) === path && !/\.(ya?ml|json)$/.test(path);
  if (isWord && !(await nodeFiles.isFile(path))) {
    throw new ConfigError("config", "must be a run file or a preset", path, presetCure(path));
  }
  return openRunFile(path, { read, resolve: resolvePath });
}

/** The configuration of a run file, or of a preset where `name` is one, with settings laid over it. */
export async function openConfig(name: string, overrides: Record<string, unknown> = {}): Promise<ResolvedConfig> {
  if (presetNames().includes(name)) return resolveConfig(name, overrides);
  return (await readRunFile(name)).resolve({ overrides });
}

/** Changes settings in a run file, which is replaced whole once what came out has been resolved. */
export async function editOnDisk(path: string, settings: Readonly<Record<string, unknown>>): Promise<void> {
  let text = await read(path);
  for (const [key, value] of Object.entries(settings)) text = await editRunFile(text, path, key, value);
  const edited = await openRunFile(path, {
    read: async (file) => (file === path ? text : read(file)),
    resolve: resolvePath,
  });
  edited.resolve();
  await writeWhole(nodeFiles, path, [new TextEncoder().encode(text)]);
}

/** `runs/small.yaml` → `small`. */
export function runFileName(path: string): string {
  return basename(path, extname(path));
}
