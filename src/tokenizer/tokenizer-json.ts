/**
 * Hugging Face `tokenizer.json` and `tokenizer_config.json`, for byte-level BPE with a pre-tokenizer of the family.
 * What would change the ids and is not implemented is refused, never ignored.
 */
import { FormatError, UnsupportedError } from "../core/errors.ts";
import { BYTE_CHARACTERS, bytesOfSpelling } from "./byte-alphabet.ts";
import { formatPreTokenizer, PRE_TOKENIZERS, type PreTokenizer, readPreTokenizer } from "./pre-tokenizer.ts";
import {
  type AddedToken,
  BEGIN_OF_SENTENCE,
  END_OF_SENTENCE,
  MAX_VOCAB_SIZE,
  PAD,
  type Vocabulary,
} from "./vocabulary.ts";

/** Settings of the model that change ids, with the values that mean "off". */
const MODEL_SETTINGS_OFF: Readonly<Record<string, readonly unknown[]>> = {
  dropout: [null, 0],
  continuing_subword_prefix: [null, ""],
  end_of_word_suffix: [null, ""],
  byte_fallback: [false, null],
  ignore_merges: [false, null],
};

type Json = Readonly<Record<string, unknown>>;

/**
 * The vocabulary that a parsed `tokenizer.json` describes.
 * @param config the parsed `tokenizer_config.json`, which names the begin, end and pad tokens. Without it they are those of
 * DeepSeek-V3.
 * @param file the name that errors give
 * @throws FormatError when a field is malformed, UnsupportedError when it asks for another kind of tokenizer.
 */
export function parseVocabulary(json: unknown, config: unknown, file: string): Vocabulary {
  return new Reader(file).vocabulary(json, config);
}

class Reader {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  vocabulary(json: unknown, config: unknown): Vocabulary {
    const root = this.#object(json, "the file");
    const model = this.#object(root["model"], "model");
    this.#checkKind(root, model);
    const preTokenizer = this.#preTokenizer(root["pre_tokenizer"]);
    const added = this.#added(root["added_tokens"]);
    const ids = this.#ids(model["vocab"]);
    const tokens = this.#tokens(ids);
    const bytes = this.#bytes(tokens, added);
    this.#checkByteTokens(ids);
    const merges = this.#merges(model["merges"], ids);
    return { preTokenizer, tokens, bytes, merges, added, ...this.#roles(config, added) };
  }

  #checkKind(root: Json, model: Json): void {
    // Files older than the field hold BPE models too.
    this.#require("model.type", model["type"] ?? "BPE", (type) => type === "BPE", ["BPE"]);
    for (const [name, off] of Object.entries(MODEL_SETTINGS_OFF)) {
      this.#require(`model.${name}`, model[name] ?? null, (value) => value === null || off.includes(value), off);
    }
    this.#require("normalizer", root["normalizer"] ?? null, isEmptyNormalizer, ["null"]);
    this.#require("decoder", root["decoder"], (value) => typeOf(value) === "ByteLevel", ["ByteLevel"]);
    const processors = ["null", "ByteLevel", "TemplateProcessing of one special token and the text"];
    this.#require("post_processor", root["post_processor"] ?? null, isNeutralPostProcessor, processors);
    for (const name of ["truncation", "padding"]) {
      this.#require(name, root[name] ?? null, (value) => value === null, ["null"]);
    }
  }

  #preTokenizer(value: unknown): PreTokenizer {
    const known = readPreTokenizer(value);
    if (known !== undefined) return known;
    const names = PRE_TOKENIZERS.map((name) => `the sequence of ${name}`);
    throw new UnsupportedError(`${this.#file}: pre_tokenizer`, "must be one that is implemented", brief(value), names);
  }

  #require(
    field: string,
    value: unknown,
    isSupported: (value: unknown) => boolean,
    available: readonly unknown[],
  ): void {
    if (isSupported(value)) return;
    const names = available.map((item) => (typeof item === "string" && item !== "" ? item : JSON.stringify(item)));
    throw new UnsupportedError(`${this.#file}: ${field}`, "must be one that is implemented", brief(value), names);
  }

  #added(value: unknown): AddedToken[] {
    return this.#array(value ?? [], "added_tokens").map((item, i) => {
      const place = `added_tokens[${i}]`;
      const { id, content, special, lstrip, rstrip, single_word: singleWord } = this.#object(item, place);
      if (typeof content !== "string" || content === "")
        throw this.#wrong(`${place}.content`, "a non-empty string", content);
      if (!isId(id)) throw this.#wrong(`${place}.id`, `an integer from 0 to ${MAX_VOCAB_SIZE - 1}`, id);
      const flags = { lstrip, rstrip, single_word: singleWord };
      for (const [name, flag] of Object.entries(flags)) {
        this.#require(`${place}.${name}`, flag ?? false, (on) => on === false, [false]);
      }
      return { id, content, special: special === true };
    });
  }

  #ids(value: unknown): Map<string, number> {
    const ids = new Map<string, number>();
    for (const [token, id] of Object.entries(this.#object(value, "model.vocab"))) {
      if (!isId(id))
        throw this.#wrong(`model.vocab[${JSON.stringify(token)}]`, `an integer from 0 to ${MAX_VOCAB_SIZE - 1}`, id);
      ids.set(token, id);
    }
    return ids;
  }

  #tokens(ids: ReadonlyMap<string, number>): string[] {
    const tokens: string[] = Array.from({ length: ids.size });
    for (const [token, id] of ids) {
      if (id >= ids.size || tokens[id] !== undefined) {
        throw this.#wrong(`model.vocab[${JSON.stringify(token)}]`, `an id of its own from 0 to ${ids.size - 1}`, id);
      }
      tokens[id] = token;
    }
    return tokens;
  }

  #bytes(tokens: readonly string[], added: readonly AddedToken[]): Uint8Array[] {
    const contents = new Map(added.map(({ id, content }) => [id, content]));
    const nTokens = Math.max(tokens.length, ...added.map(({ id }) => id + 1));
    return Array.from({ length: nTokens }, (_, id) => {
      const content = contents.get(id);
      const token = tokens[id];
      if (content !== undefined) {
        if (token === undefined || token === content) return new TextEncoder().encode(content);
        throw this.#wrong(`added_tokens with id ${id}`, `the token ${JSON.stringify(token)} of model.vocab`, content);
      }
      if (token === undefined)
        throw this.#wrong("added_tokens", "numbered without gaps after model.vocab", `no id ${id}`);
      const bytes = bytesOfSpelling(token);
      if (bytes === undefined || bytes.length === 0) {
        throw this.#wrong(`model.vocab[${JSON.stringify(token)}]`, "spelled in the byte-level alphabet", token);
      }
      return bytes;
    });
  }

  #checkByteTokens(ids: ReadonlyMap<string, number>): void {
    const missing = BYTE_CHARACTERS.findIndex((character, byte) => !ids.has(character) && occursInUtf8(byte));
    if (missing >= 0) {
      throw this.#wrong("model.vocab", "a vocabulary with every byte of UTF-8", `none for byte ${missing}`);
    }
  }

  #merges(value: unknown, ids: ReadonlyMap<string, number>): Uint32Array {
    const list = this.#array(value, "model.merges");
    const merges = new Uint32Array(list.length * 3);
    list.forEach((item, i) => {
      const pair = typeof item === "string" ? item.split(" ") : item;
      if (!isPair(pair)) throw this.#wrong(`model.merges[${i}]`, "two tokens", item);
      [...pair, pair.join("")].forEach((token, side) => {
        const id = ids.get(token);
        if (id === undefined)
          throw this.#wrong(`model.merges[${i}]`, "of tokens of model.vocab that make one of them", item);
        merges[i * 3 + side] = id;
      });
    });
    return merges;
  }

  #roles(config: unknown, added: readonly AddedToken[]): Pick<Vocabulary, "bosId" | "eosId" | "padId"> {
    const named = config === undefined ? {} : this.#object(config, "tokenizer_config");
    const ids = new Map(added.map(({ id, content }) => [content, id]));
    const idOf = (field: string, usual: string): number => {
      const content = contentOf(named[field]) ?? usual;
      const id = ids.get(content);
      if (id === undefined) throw this.#wrong(field, "one of added_tokens", content);
      return id;
    };
    const eosId = idOf("eos_token", END_OF_SENTENCE);
    const hasPad = contentOf(named["pad_token"]) !== undefined || ids.has(PAD);
    return { bosId: idOf("bos_token", BEGIN_OF_SENTENCE), eosId, padId: hasPad ? idOf("pad_token", PAD) : eosId };
  }

  #object(value: unknown, field: string): Json {
    if (isObject(value)) return value;
    throw this.#wrong(field, "a JSON object", value);
  }

  #array(value: unknown, field: string): readonly unknown[] {
    if (Array.isArray(value)) return value;
    throw this.#wrong(field, "a JSON array", value);
  }

  #wrong(field: string, rule: string, got: unknown): FormatError {
    return new FormatError(this.#file, `${field} must be ${rule}`, { got: brief(got) });
  }
}

export function formatTokenizerJson(vocabulary: Vocabulary): string {
  const { tokens, merges, added } = vocabulary;
  const spell = (id: number): string => tokens[id]!;
  return JSON.stringify({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added.map(({ id, content, special }) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special,
    })),
    normalizer: null,
    pre_tokenizer: formatPreTokenizer(vocabulary.preTokenizer),
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: Array.from({ length: merges.length / 3 }, (_, i) => [spell(merges[i * 3]!), spell(merges[i * 3 + 1]!)]),
    },
  });
}

export function formatTokenizerConfigJson(vocabulary: Vocabulary): string {
  const contents = new Map(vocabulary.added.map(({ id, content }) => [id, content]));
  const config = {
    add_bos_token: false,
    add_eos_token: false,
    bos_token: contents.get(vocabulary.bosId),
    eos_token: contents.get(vocabulary.eosId),
    pad_token: contents.get(vocabulary.padId),
    unk_token: null,
    clean_up_tokenization_spaces: false,
    tokenizer_class: "PreTrainedTokenizerFast",
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}

/** The vocabularies of LLM and Coder leave out the bytes that well-formed UTF-8 never holds. */
function occursInUtf8(byte: number): boolean {
  return byte < 0xf5 && byte !== 0xc0 && byte !== 0xc1;
}

/** Whether it leaves the ids as they are, or only puts the begin-of-sentence token in front, which others see to. */
function isNeutralPostProcessor(value: unknown): boolean {
  if (value === null || typeOf(value) === "ByteLevel") return true;
  if (!isObject(value)) return false;
  const { type, processors, single } = value;
  if (type === "Sequence") return Array.isArray(processors) && processors.every(isNeutralPostProcessor);
  if (type !== "TemplateProcessing" || !Array.isArray(single)) return false;
  const steps = single.flatMap((step) => (isObject(step) ? Object.keys(step) : []));
  return steps.join(" ") === "SpecialToken Sequence" || steps.join(" ") === "Sequence";
}

function isEmptyNormalizer(value: unknown): boolean {
  return (
    value === null || (isObject(value) && Array.isArray(value["normalizers"]) && value["normalizers"].length === 0)
  );
}

function typeOf(value: unknown): unknown {
  return isObject(value) ? value["type"] : undefined;
}

/** The content of a token that tokenizer_config.json writes as a string or as an object. */
function contentOf(value: unknown): string | undefined {
  const content = isObject(value) ? value["content"] : value;
  return typeof content === "string" ? content : undefined;
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < MAX_VOCAB_SIZE;
}

function isPair(value: unknown): value is [string, string] {
  return Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === "string" && part !== "");
}

/** A value, or its beginning when it is too long for a message. */
function brief(value: unknown): unknown {
  const text = JSON.stringify(value ?? "nothing");
  return text.length > 80 ? `${text.slice(0, 80)}…` : (value ?? "nothing");
}
