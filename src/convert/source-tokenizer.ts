/** What a source says of its tokens: ids for the configuration, files for a folder, the vocabulary for a GGUF file. */

import { join } from "node:path";
import { FormatError } from "../core/errors.ts";
import { readText } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import { loadTokenizer, readCheckpointChat } from "../tokenizer/node.ts";
import { copiedFile, textFile, type OutputFile } from "./plan.ts";

export interface SourceTokenizer {
  readonly ids: { readonly bos: number; readonly eos: number };
  /** Files of a Hugging Face folder that say the same. */
  readonly hfFiles: readonly OutputFile[];
  /** The tokenizer itself. @throws IoError when the source has none. */
  readonly load: () => Promise<Tokenizer>;
  /** The chat template in Jinja. */
  readonly template: string | undefined;
}

/** Files about tokens and generation that are copied as they are. */
const COPIED = [
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
];

/** @param path - a model folder or a `.gguf` file. */
export async function readTokenizer(path: string): Promise<SourceTokenizer> {
  return path.endsWith(".gguf") ? fromGguf(path) : fromFolder(path);
}

async function fromFolder(folder: string): Promise<SourceTokenizer> {
  const config = await readObject(join(folder, "config.json"));
  const copies = await Promise.all(COPIED.map((name) => copiedFile(folder, name)));
  const { jinja } = await readCheckpointChat(folder);
  return {
    ids: { bos: firstId(config.bos_token_id, 0), eos: firstId(config.eos_token_id, 1) },
    hfFiles: copies.filter((file) => file !== undefined),
    load: () => loadTokenizer(folder),
    template: jinja?.text,
  };
}

async function fromGguf(path: string): Promise<SourceTokenizer> {
  const tokenizer = await loadTokenizer(path);
  const { jinja } = await readCheckpointChat(path);
  const files = [
    textFile("tokenizer.json", tokenizer.toJson()),
    textFile("tokenizer_config.json", tokenizer.toConfigJson()),
    ...(jinja === undefined ? [] : [textFile("chat_template.jinja", jinja.text)]),
  ];
  const ids = { bos: tokenizer.bosId, eos: tokenizer.eosId };
  return { ids, hfFiles: files, load: () => Promise.resolve(tokenizer), template: jinja?.text };
}

/** Some files name several tokens that end a text. */
function firstId(value: unknown, absent: number): number {
  const first: unknown = Array.isArray(value) ? value[0] : value;
  return typeof first === "number" ? first : absent;
}

async function readObject(path: string): Promise<Readonly<Record<string, unknown>>> {
  if (!(await nodeFiles.isFile(path))) return {};
  try {
    return Object(JSON.parse(await readText(nodeFiles, path))) as Readonly<Record<string, unknown>>;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new FormatError(path, "must be JSON", { got: error.message });
  }
}
