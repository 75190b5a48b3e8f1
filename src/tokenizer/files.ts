/** A tokenizer as the two files of a Hugging Face model folder. */
import { open, readFile, rename, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FormatError, IoError } from "../core/errors.ts";
import { createEncoder } from "./native.ts";
import { parseVocabulary } from "./tokenizer-json.ts";
import { Tokenizer } from "./tokenizer.ts";

const TOKENIZER_FILE = "tokenizer.json";
const CONFIG_FILE = "tokenizer_config.json";

/** The largest published tokenizer.json is about 35 MB; a larger file is something else. */
const MAX_FILE_BYTES = 256 * 2 ** 20;

/**
 * The tokenizer in a model folder, or in a tokenizer.json; the begin, end and pad tokens are taken from the
 * tokenizer_config.json beside it, if there is one.
 * @throws IoError when the file cannot be read, FormatError when it is malformed, UnsupportedError when it is not
 * byte-level BPE with the DeepSeek-V3 pre-tokenizer.
 */
export async function loadTokenizer(path: string): Promise<Tokenizer> {
  const isFolder = await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
  const file = isFolder ? join(path, TOKENIZER_FILE) : path;
  const json = await readJson(file);
  if (json === undefined) throw new IoError(file, "must exist", { cure: "train a tokenizer or give another path" });
  const config = await readJson(join(dirname(file), CONFIG_FILE));
  const vocabulary = parseVocabulary(json, config, file);
  return new Tokenizer(vocabulary, createEncoder(vocabulary));
}

/** Writes tokenizer.json and tokenizer_config.json into an existing folder; each appears whole or not at all. */
export async function saveTokenizer(tokenizer: Tokenizer, folder: string): Promise<void> {
  await writeWhole(join(folder, CONFIG_FILE), tokenizer.toConfigJson());
  await writeWhole(join(folder, TOKENIZER_FILE), tokenizer.toJson());
}

/** The parsed file; undefined when there is none. */
async function readJson(file: string): Promise<unknown> {
  const text = await readText(file);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new FormatError(file, "must be JSON", { got: (error as Error).message });
  }
}

async function readText(file: string): Promise<string | undefined> {
  try {
    const { size } = await stat(file);
    if (size > MAX_FILE_BYTES) throw new FormatError(file, `must be at most ${MAX_FILE_BYTES} bytes`, { got: size });
    return await readFile(file, "utf8");
  } catch (error) {
    if (error instanceof FormatError) throw error;
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new IoError(file, "must be a readable file", { got: (error as Error).message, cause: error });
  }
}

/** Writes under another name, syncs, renames. */
async function writeWhole(file: string, text: string): Promise<void> {
  const part = join(dirname(file), `.${basename(file)}.${process.pid}.part`);
  try {
    const handle = await open(part, "w");
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(part, file);
  } catch (error) {
    throw new IoError(file, "must be writable", { got: (error as Error).message, cause: error });
  }
}
