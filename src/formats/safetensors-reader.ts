/** Reads tensors from one safetensors file, or from the shards that an index names, by byte ranges. */

import { FormatError, invariant, IoError } from "../core/errors.ts";
import { folderOf, type FilePort, type ReadableFile } from "./file-port.ts";
import { readSafetensorsHeader, type SafetensorsHeader, type TensorInfo } from "./safetensors-header.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
/** An index of 163 shards and 92,000 names has 9 MB; more than ten times that is not an index. */
const MAX_INDEX_BYTES = 100_000_000;

export interface LocatedTensor extends TensorInfo {
  /** Path of the file that holds it. */
  readonly file: string;
}

/** Open tensors; ends with `close`. */
export interface TensorReader {
  readonly tensors: ReadonlyMap<string, LocatedTensor>;
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * Bytes of a tensor, all of them or `length` from `begin` on, both counted within the tensor.
   * @throws FormatError when the file has become shorter.
   */
  read(name: string, begin?: number, length?: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/**
 * Opens a `.safetensors` file, an `.index.json`, or a folder that holds `model.safetensors` or its index. Headers are
 * read and checked at once, tensors when they are asked for.
 * @throws FormatError for a malformed file or index. @throws IoError when a file is missing or unreadable.
 */
export async function openTensors(port: FilePort, path: string): Promise<TensorReader> {
  const target = await findTarget(port, path);
  const shards = target.endsWith(".json") ? await readIndex(port, target) : new Map([[target, undefined]]);
  const tensors = new Map<string, LocatedTensor>();
  const metadata: [string, string][] = [];
  const files = new Map<string, ReadableFile>();
  const close = async (): Promise<void> => {
    for (const file of files.values()) await file.close();
    files.clear();
  };
  try {
    for (const [file, names] of shards) {
      const open = await port.openRead(file);
      files.set(file, open);
      const header = await readSafetensorsHeader(open);
      addShard(file, header, names ?? header.tensors.keys(), tensors);
      metadata.push(...Object.entries(header.metadata));
    }
  } catch (error) {
    await close();
    throw error;
  }
  const read = (name: string, begin?: number, length?: number): Promise<Uint8Array> =>
    readRange(tensors.get(name), files, name, begin, length);
  return { tensors, metadata: Object.fromEntries(metadata), read, close };
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

/** Names of the tensors of each shard, by the shard's path. */
async function readIndex(port: FilePort, path: string): Promise<Map<string, string[]>> {
  const weightMap = await readWeightMap(port, path);
  const shards = new Map<string, string[]>();
  for (const [name, shard] of Object.entries(weightMap)) {
    if (typeof shard !== "string" || /[/\\]|^\.*$/.test(shard)) {
      throw new FormatError(path, `must name a file of the same folder for ${name}`, { got: shard });
    }
    const file = `${folderOf(path)}/${shard}`;
    const names = shards.get(file);
    if (names === undefined) shards.set(file, [name]);
    else names.push(name);
  }
  return shards;
}

async function readWeightMap(port: FilePort, path: string): Promise<object> {
  const file = await port.openRead(path);
  try {
    if (file.bytes > MAX_INDEX_BYTES) {
      throw new FormatError(path, `must be an index of at most ${MAX_INDEX_BYTES} bytes`, { got: file.bytes });
    }
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.read(0, file.bytes));
    const { weight_map: weightMap } = JSON.parse(text) as { weight_map?: unknown };
    if (typeof weightMap === "object" && weightMap !== null) return weightMap;
  } catch (cause) {
    if (!(cause instanceof TypeError || cause instanceof SyntaxError)) throw cause;
  } finally {
    await file.close();
  }
  throw new FormatError(path, "must be a JSON object with a weight_map");
}

function addShard(
  file: string,
  header: SafetensorsHeader,
  names: Iterable<string>,
  tensors: Map<string, LocatedTensor>,
): void {
  for (const name of names) {
    const info = header.tensors.get(name);
    if (info === undefined) {
      throw new FormatError(file, `must hold ${name}, as the index says`, { cure: "copy or download the shard again" });
    }
    tensors.set(name, { ...info, file });
  }
}

async function readRange(
  tensor: LocatedTensor | undefined,
  files: ReadonlyMap<string, ReadableFile>,
  name: string,
  begin = 0,
  length = (tensor?.bytes ?? 0) - begin,
): Promise<Uint8Array> {
  invariant(tensor !== undefined, `tensor ${name} is in the file`);
  invariant(begin >= 0 && length >= 0 && begin + length <= tensor.bytes, `range lies within tensor ${name}`);
  const file = files.get(tensor.file);
  invariant(file !== undefined, `the reader of tensor ${name} is open`);
  const bytes = await file.read(tensor.offset + begin, length);
  if (bytes.length === length) return bytes;
  throw new FormatError(tensor.file, `must hold ${length} bytes of ${name}`, {
    offset: tensor.offset + begin,
    got: bytes.length,
    cure: "the file was cut off while it was read",
  });
}
