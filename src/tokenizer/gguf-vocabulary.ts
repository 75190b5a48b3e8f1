/** The tokenizer in the metadata of a GGUF file, as the tokenizer.json and tokenizer_config.json that say the same. */
import { FormatError, UnsupportedError } from "../core/errors.ts";
import type { GgufReader } from "../formats/index.ts";
import { formatPreTokenizer, PRE_TOKENIZERS, type PreTokenizer } from "./pre-tokenizer.ts";
import { parseVocabulary } from "./tokenizer-json.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** Kinds of token in `tokenizer.ggml.token_type`. */
const NORMAL = 1;
const CONTROL = 3;
const USER_DEFINED = 4;

/** How converters fill up a token list to the rows of the embedding, some of them as user-defined tokens. */
const FILLER = /^\[PAD ?\d+\]$/;

/** What files call the pre-tokenizers besides their own names. */
const ALIASES: Readonly<Record<string, PreTokenizer>> = { deepseek3: "deepseek-v3", "deepseek-r1": "deepseek-v3" };

/**
 * The vocabulary of a GGUF file. It ends with the last token that is not a filler.
 * @throws FormatError when the metadata is incomplete or malformed, UnsupportedError for another kind of tokenizer.
 */
export async function readGgufVocabulary(gguf: GgufReader, file: string): Promise<Vocabulary> {
  const preTokenizer = preTokenizerOf(gguf, file);
  const tokens = (await readList(gguf, file, "tokens")) as string[];
  const types = (await readList(gguf, file, "token_type")).map(Number);
  const merges = await readList(gguf, file, "merges");
  if (types.length !== tokens.length) {
    throw new FormatError(file, `tokenizer.ggml.token_type must have ${tokens.length} values`, { got: types.length });
  }
  const nModelTokens = types.lastIndexOf(NORMAL) + 1;
  const isAdded = (type: number, id: number): boolean =>
    type === CONTROL || (type === USER_DEFINED && !FILLER.test(tokens[id]!));
  const added = tokens.flatMap((content, id) =>
    isAdded(types[id]!, id) ? [{ id, content, special: types[id] === CONTROL }] : [],
  );
  const json = {
    added_tokens: added,
    pre_tokenizer: formatPreTokenizer(preTokenizer),
    decoder: { type: "ByteLevel" },
    model: { type: "BPE", merges },
  };
  const named = (role: string): string | undefined => tokens[numberOf(gguf, `${role}_token_id`) ?? -1];
  const addBos = gguf.metadata.get("tokenizer.ggml.add_bos_token");
  const config = {
    add_bos_token: addBos?.type === "bool" && addBos.value === true,
    bos_token: named("bos"),
    eos_token: named("eos"),
    pad_token: named("padding"),
  };
  return parseVocabulary(json, config, file, tokens.slice(0, nModelTokens));
}

function preTokenizerOf(gguf: GgufReader, file: string): PreTokenizer {
  const model = textOf(gguf, "model");
  if (model !== "gpt2") {
    throw new UnsupportedError(`${file}: tokenizer.ggml.model`, "must be byte-level BPE", model ?? "nothing", ["gpt2"]);
  }
  const name = textOf(gguf, "pre") ?? "nothing";
  const known = ALIASES[name] ?? PRE_TOKENIZERS.find((preTokenizer) => preTokenizer === name);
  if (known !== undefined) return known;
  throw new UnsupportedError(`${file}: tokenizer.ggml.pre`, "must be one that is implemented", name, PRE_TOKENIZERS);
}

async function readList(gguf: GgufReader, file: string, name: string): Promise<readonly unknown[]> {
  const key = `tokenizer.ggml.${name}`;
  const entry = gguf.metadata.get(key);
  const kind = name === "token_type" ? "numbers" : "texts";
  if (entry?.type === "list" && (entry.of === "text") === (kind === "texts")) return gguf.readList(key);
  throw new FormatError(file, `${key} must be a list of ${kind}`, { got: entry?.type ?? "nothing" });
}

function textOf(gguf: GgufReader, name: string): string | undefined {
  const entry = gguf.metadata.get(`tokenizer.ggml.${name}`);
  return entry?.type === "text" ? (entry.value as string) : undefined;
}

function numberOf(gguf: GgufReader, name: string): number | undefined {
  const entry = gguf.metadata.get(`tokenizer.ggml.${name}`);
  return entry === undefined || entry.type === "list" ? undefined : Number(entry.value);
}
