/** Reads tensors from one safetensors file, or from the shards that an index names, by byte ranges. */

import { FormatError, IoError } from "../core/errors.ts";
import { folderOf, type FilePort, type ReadableFile } from "./file-port.ts";
import { JsonFault, JsonMembers, skipSpace } from "./json-members.ts";
import { readHeader, readSafetensorsHeader, type KeepTensor, type SafetensorsTensor } from "./safetensors-header.ts";
import { closeAll, openRanges, type OpenTensors } from "./tensor-reader.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
/** An index of 163 shards and 92,000 names has 9 MB; more than ten times that is not an index. */
const MAX_INDEX_BYTES = 100_000_000;
/** File systems allow 255 bytes. */
const MAX_SHARD_NAME = 300;

/** Open tensors of safetensors files with the metadata of their headers. */
export interface TensorReader extends OpenTensors<SafetensorsTensor> {
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * Opens a `.safetensors` file, an `.index.json`, or a folder that holds `model.safetensors` or its index. Headers are
 * read and checked at once, tensors when they are asked for.
 * @throws FormatError for a malformed file or index. @throws IoError when a file is missing or unreadable.
 */
export async function openTensors(port: FilePort, path: string): Promise<TensorReader> {
  const target = await findTarget(port, path);
  const index = target.endsWith(".json") ? await readIndex(port, target) : undefined;
  const metadata: [string, string][] = [];
  const files = new Map<string, ReadableFile>();
  const open = async (path: string): Promise<ReadableFile> => {
    files.set(path, await port.openRead(path));
    return files.get(path)!;
  };
  let tensors: ReadonlyMap<string, SafetensorsTensor>;
  try {
    if (index === undefined) {
      const header = await readSafetensorsHeader(await open(target));
      tensors = header.tensors;
      metadata.push(...Object.entries(header.metadata));
    } else {
      const located: Map<string, string | SafetensorsTensor> = index;
      const shards = [...new Set(index.values())];
      await checkPresent(port, shards);
      for (const path of shards) {
        const own = await readHeader(await open(path), keepNamed(located, path));
        metadata.push(...Object.entries(own));
      }
      tensors = checkLocated(located);
    }
  } catch (error) {
    await closeAll(files);
    throw error;
  }
  return { ...openRanges(tensors, files), metadata: Object.fromEntries(metadata) };
}

/** Asks for all shards at once: one after the other, a hundred are waited for a hundred times. */
async function checkPresent(port: FilePort, shards: readonly string[]): Promise<void> {
  const isThere = await Promise.all(shards.map((path) => port.isFile(path)));
  const missing = shards.find((_, i) => !isThere[i]);
  if (missing === undefined) return;
  const cure = "copy or download it again";
  throw new IoError(missing, "must be there: the model's index names this shard", { got: "no such file", cure });
}

async function findTarget(port: FilePort, path: string): Promise<string> {
  if (await port.isFile(path)) return path;
  for (const name of [SINGLE, INDEX]) {
    if (await port.isFile(`${path}/${name}`)) return `${path}/${name}`;
  }
  throw new IoError(path, `must be a safetensors file or a folder with ${SINGLE} or ${INDEX}`, {
    cure: "check the path",
  });
}

/**
 * Puts each tensor that the index names in the place of its shard's path, in the index itself: two tables of a hundred
 * thousand names would double the memory.
 */
function keepNamed(located: Map<string, string | SafetensorsTensor>, path: string): KeepTensor {
  return (name, tensor) => {
    const found = located.get(name);
    if (found === path) located.set(name, tensor);
    return typeof found !== "object" || found.file !== path;
  };
}

function checkLocated(
  located: ReadonlyMap<string, string | SafetensorsTensor>,
): ReadonlyMap<string, SafetensorsTensor> {
  for (const [name, found] of located) {
    if (typeof found !== "string") continue;
    throw new FormatError(found, `must hold ${name}, as the index says`, { cure: "copy or download the shard again" });
  }
  return located as ReadonlyMap<string, SafetensorsTensor>;
}

/** The path of the shard that holds each tensor, by the tensor's name. */
async function readIndex(port: FilePort, path: string): Promise<Map<string, string>> {
  const text = await readIndexText(port, path);
  try {
    return readWeightMap(text, findWeightMap(text, path), path);
  } catch (fault) {
    if (fault instanceof JsonFault) throw indexFault(text, path, fault.at, fault.message);
    throw fault;
  }
}

async function readIndexText(port: FilePort, path: string): Promise<string> {
  const file = await port.openRead(path);
  try {
    if (file.bytes > MAX_INDEX_BYTES) {
      throw new FormatError(path, `must be an index of at most ${MAX_INDEX_BYTES} bytes`, { got: file.bytes });
    }
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.read(0, file.bytes));
  } catch (error) {
    if (error instanceof TypeError) throw new FormatError(path, "must be UTF-8 text");
    throw error;
  } finally {
    await file.close();
  }
}

function indexFault(text: string, path: string, at: number, what: string, got?: unknown): FormatError {
  const offset = new TextEncoder().encode(text.slice(0, at)).length;
  return new FormatError(path, what, { offset, ...(got === undefined ? {} : { got }) });
}

function findWeightMap(text: string, path: string): number {
  const members = new JsonMembers(text, skipSpace(text, 0));
  for (let key = members.next(); key !== undefined; key = members.next()) {
    if (key === "weight_map") return members.at();
  }
  throw new FormatError(path, "must be a JSON object with a weight_map", { offset: 0 });
}

/** Neighbours mostly share a shard, so its path is made anew only where the text changes. */
function readWeightMap(text: string, start: number, path: string): Map<string, string> {
  const index = new Map<string, string>();
  const paths = new Map<string, string>();
  const members = new JsonMembers(text, start);
  let written = "\n";
  let shard = "";
  for (let name = members.next(); name !== undefined; name = members.next()) {
    const at = members.at();
    if (!text.startsWith(written, at)) {
      written = members.written();
      shard = paths.get(written) ?? shardPath(members.value(MAX_SHARD_NAME), path);
      if (shard === "")
        throw indexFault(
          text,
          path,
          at,
          `must name a file of the same folder for ${name}`,
          members.value(MAX_SHARD_NAME),
        );
      paths.set(written, shard);
    }
    const before = index.size;
    if (index.set(name, shard).size === before) throw indexFault(text, path, at, `must name ${name} once`);
    members.passTo(at + written.length);
  }
  return index;
}

/** Empty for what is no file of the index's own folder. */
function shardPath(shard: unknown, path: string): string {
  return typeof shard === "string" && !/[/\\]|^\.*$/.test(shard) ? `${folderOf(path)}/${shard}` : "";
}
