/** A tokenizer as the two files of a Hugging Face model folder, or in the metadata of a GGUF file. */
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { FormatError, IoError } from "../core/errors.ts";
import { openGgufTensors, readText, writeWhole } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import { readGgufVocabulary } from "./gguf-vocabulary.ts";
import { createEncoder } from "./native.ts";
import { parseVocabulary } from "./tokenizer-json.ts";
import { scanTokenizerJson } from "./tokenizer-scan.ts";
import { Tokenizer } from "./tokenizer.ts";
import type { Vocabulary } from "./vocabulary.ts";

const TOKENIZER_FILE = "tokenizer.json";
const CONFIG_FILE = "tokenizer_config.json";
/** The largest published tokenizer.json is about 35 MB. */
const MAX_SCANNED_BYTES = 2 ** 28;

/**
 * The tokenizer in a model folder, in a tokenizer.json or in a `.gguf` file. The begin, end and pad tokens are taken from
 * the tokenizer_config.json beside a tokenizer.json, if there is one.
 * @throws IoError when the file cannot be read, FormatError when it is malformed, UnsupportedError when it is not
 * byte-level BPE with a pre-tokenizer of the family.
 */
export async function loadTokenizer(path: string): Promise<Tokenizer> {
  const vocabulary = path.endsWith(".gguf") ? await readFromGguf(path) : await readFromFolder(path);
  return new Tokenizer(vocabulary, createEncoder(vocabulary));
}

async function readFromGguf(path: string): Promise<Vocabulary> {
  const gguf = await openGgufTensors(nodeFiles, path);
  try {
    return await readGgufVocabulary(gguf, path);
  } finally {
    await gguf.close();
  }
}

async function readFromFolder(path: string): Promise<Vocabulary> {
  const isFolder = await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
  const file = isFolder ? join(path, TOKENIZER_FILE) : path;
  if (!(await nodeFiles.isFile(file))) {
    throw new IoError(file, "must exist", {
      cure: "download it with the model, train a tokenizer, or give another path",
    });
  }
  const config = await readJson(join(dirname(file), CONFIG_FILE));
  const scanned = scanTokenizerJson(await readBytes(file));
  if (scanned === undefined) return parseVocabulary(await readJson(file), config, file);
  return parseVocabulary(scanned.json, config, file, scanned.tokens);
}

/** Writes tokenizer.json and tokenizer_config.json into an existing folder; each appears whole or not at all. */
export async function saveTokenizer(tokenizer: Tokenizer, folder: string): Promise<void> {
  const utf8 = new TextEncoder();
  await writeWhole(nodeFiles, join(folder, CONFIG_FILE), [utf8.encode(tokenizer.toConfigJson())]);
  await writeWhole(nodeFiles, join(folder, TOKENIZER_FILE), [utf8.encode(tokenizer.toJson())]);
}

/** The whole file, or its beginning where it is too large for a tokenizer. */
async function readBytes(path: string): Promise<Uint8Array> {
  const file = await nodeFiles.openRead(path);
  try {
    return await file.read(0, Math.min(file.bytes, MAX_SCANNED_BYTES));
  } finally {
    await file.close();
  }
}

/** The parsed file; undefined when there is none. */
async function readJson(file: string): Promise<unknown> {
  if (!(await nodeFiles.isFile(file))) return undefined;
  const text = await readText(nodeFiles, file);
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new FormatError(file, "must be JSON", { got: (error as Error).message });
  }
}
