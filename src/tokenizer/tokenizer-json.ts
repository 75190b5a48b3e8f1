/**
 * Hugging Face `tokenizer.json` and `tokenizer_config.json`, for byte-level BPE with a pre-tokenizer of the family.
 * What would change the ids and is not implemented is refused, never ignored.
 */
import { FormatError, UnsupportedError } from "../core/errors.ts";
import { BYTE_CHARACTERS } from "./byte-alphabet.ts";
import { formatPreTokenizer, PRE_TOKENIZERS, type PreTokenizer, readPreTokenizer } from "./pre-tokenizer.ts";
import { TokenTable } from "./token-table.ts";
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
 * @param config the parsed `tokenizer_config.json`, which names the begin, end and pad tokens and says whether a text begins
 * with the first. Without it they are those of DeepSeek-V3, and a text does.
 * @param file the name that errors give
 * @param list the tokens by id, in place of `model.vocab`
 * @throws FormatError when a field is malformed, UnsupportedError when it asks for another kind of tokenizer.
 */
export function parseVocabulary(json: unknown, config: unknown, file: string, list?: readonly string[]): Vocabulary {
  return new Reader(file).vocabulary(json, config, list);
}

class Reader {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  vocabulary(json: unknown, config: unknown, list: readonly string[] | undefined): Vocabulary {
    const root = this.#object(json, "the file");
    const model = this.#object(root["model"], "model");
    this.#checkKind(root, model);
    const preTokenizer = this.#preTokenizer(root["pre_tokenizer"]);
    const added = this.#added(root["added_tokens"]);
    const vocab = list ?? this.#object(model["vocab"], "model.vocab");
    const spellings = list ?? Object.keys(vocab);
    const idOf = (spelling: string, i: number): unknown => (list === undefined ? (vocab as Json)[spelling] : i);
    const tokens = this.#tokens(spellings, idOf, added);
    this.#checkByteTokens(tokens);
    const merges = this.#merges(model["merges"], tokens);
    const roles = { ...this.#roles(config, added), addBos: asksForBos(config, root["post_processor"]) };
    return { preTokenizer, tokens, nModelTokens: spellings.length, merges, added, ...roles };
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

  /** All tokens: first those that the model spells, then the added ones, which are their own spelling. */
  #tokens(
    spellings: readonly string[],
    idOf: (spelling: string, i: number) => unknown,
    added: readonly AddedToken[],
  ): TokenTable {
    const size = added.reduce((most, { id }) => Math.max(most, id + 1), spellings.length);
    const tokens = new TokenTable(size);
    const isTaken = new Uint8Array(spellings.length);
    const plain = new Map<number, string>();
    for (let i = 0; i < spellings.length; i++) {
      const id = idOf(spellings[i]!, i);
      if (!isId(id)) throw this.#wrong(vocabEntry(spellings[i]!), `an integer from 0 to ${MAX_VOCAB_SIZE - 1}`, id);
      const isFree = id < spellings.length && isTaken[id] === 0;
      const holder = isFree ? tokens.spell(id, spellings[i]!) : undefined;
      if (holder === -1) plain.set(id, spellings[i]!);
      else if (holder !== id) {
        throw this.#wrong(vocabEntry(spellings[i]!), `an id of its own from 0 to ${spellings.length - 1}`, id);
      }
      isTaken[id] = 1;
    }
    for (const token of added) this.#add(tokens, token, plain.get(token.id));
    this.#checkFilled(tokens, plain);
    return tokens;
  }

  /** Gives an added token its content; the model spells it in the same way if it has it at all. */
  #add(tokens: TokenTable, { id, content }: AddedToken, plain: string | undefined): void {
    const spelled = plain ?? (tokens.has(id) ? tokens.spellingOf(id) : content);
    if (spelled !== content) {
      throw this.#wrong(`added_tokens with id ${id}`, `the token ${JSON.stringify(spelled)} of model.vocab`, content);
    }
    // Its letters are themselves, also those by which the alphabet means other bytes.
    tokens.set(id, new TextEncoder().encode(content));
  }

  #checkFilled(tokens: TokenTable, plain: ReadonlyMap<number, string>): void {
    for (let id = 0; id < tokens.size; id++) {
      if (tokens.has(id)) continue;
      const spelling = plain.get(id);
      if (spelling === undefined) {
        throw this.#wrong("added_tokens", "numbered without gaps after model.vocab", `no id ${id}`);
      }
      throw this.#wrong(vocabEntry(spelling), "spelled in the byte-level alphabet", spelling);
    }
  }

  #checkByteTokens(tokens: TokenTable): void {
    const missing = BYTE_CHARACTERS.findIndex((character, byte) => tokens.find(character) < 0 && occursInUtf8(byte));
    if (missing >= 0) {
      throw this.#wrong("model.vocab", "a vocabulary with every byte of UTF-8", `none for byte ${missing}`);
    }
  }

  #merges(value: unknown, tokens: TokenTable): Uint32Array {
    const list = this.#array(value, "model.merges");
    const merges = new Uint32Array(list.length * 3);
    for (let i = 0; i < list.length; i++) {
      const pair = pairOf(list[i]);
      if (pair === undefined) throw this.#wrong(`model.merges[${i}]`, "two tokens", list[i]);
      const left = tokens.find(pair[0]);
      const right = tokens.find(pair[1]);
      const merged = tokens.find(pair[0], pair[1]);
      if (left < 0 || right < 0 || merged < 0) {
        throw this.#wrong(`model.merges[${i}]`, "of tokens of model.vocab that make one of them", list[i]);
      }
      merges[i * 3] = left;
      merges[i * 3 + 1] = right;
      merges[i * 3 + 2] = merged;
    }
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
  const { tokens, nModelTokens, merges, added, bosId } = vocabulary;
  const contents = new Map(added.map(({ id, content }) => [id, content]));
  const spell = (id: number): string => contents.get(id) ?? tokens.spellingOf(id);
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
    post_processor: vocabulary.addBos ? bosInFront(spell(bosId), bosId) : null,
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
      vocab: Object.fromEntries(Array.from({ length: nModelTokens }, (_, id) => [spell(id), id])),
      merges: Array.from({ length: merges.length / 3 }, (_, i) => [spell(merges[i * 3]!), spell(merges[i * 3 + 1]!)]),
    },
  });
}

export function formatTokenizerConfigJson(vocabulary: Vocabulary): string {
  const contents = new Map(vocabulary.added.map(({ id, content }) => [id, content]));
  const config = {
    add_bos_token: vocabulary.addBos,
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

/** The post-processor that puts a token in front of a text: `transformers` 5 asks nothing else whether there is to be one. */
function bosInFront(id: string, tokenId: number): Json {
  const bos = { SpecialToken: { id, type_id: 0 } };
  const [first, second] = ["A", "B"].map((name, type) => ({ Sequence: { id: name, type_id: type } }));
  const tokens = { [id]: { id, ids: [tokenId], tokens: [id] } };
  return { type: "TemplateProcessing", single: [bos, first], pair: [bos, first, second], special_tokens: tokens };
}

/** Whether a text is to begin with the begin-of-sentence token: as tokenizer_config.json says, else as the post-processor does. */
function asksForBos(config: unknown, postProcessor: unknown): boolean {
  if (config === undefined) return true;
  const said = isObject(config) ? config["add_bos_token"] : undefined;
  return typeof said === "boolean" ? said : putsTokenInFront(postProcessor);
}

function putsTokenInFront(postProcessor: unknown): boolean {
  if (!isObject(postProcessor)) return false;
  const { type, processors, single } = postProcessor;
  if (type === "Sequence") return Array.isArray(processors) && processors.some(putsTokenInFront);
  return type === "TemplateProcessing" && Array.isArray(single) && isObject(single[0]) && "SpecialToken" in single[0];
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

/** The two tokens of a merge, which is written as a text or as a list; undefined when it is neither. */
function pairOf(item: unknown): readonly [string, string] | undefined {
  if (typeof item === "string") {
    // `split` would keep all its parts alive in a cache of the engine.
    const gap = item.indexOf(" ");
    const isPair = gap > 0 && gap < item.length - 1 && item.indexOf(" ", gap + 1) < 0;
    return isPair ? [item.slice(0, gap), item.slice(gap + 1)] : undefined;
  }
  if (!Array.isArray(item) || item.length !== 2) return undefined;
  const [left, right] = item as unknown[];
  return typeof left === "string" && typeof right === "string" && left !== "" && right !== ""
    ? [left, right]
    : undefined;
}

function vocabEntry(spelling: string): string {
  return `model.vocab[${JSON.stringify(spelling)}]`;
}

/** A value, or its beginning when it is too long for a message. */
function brief(value: unknown): unknown {
  const text = JSON.stringify(value ?? "nothing");
  return text.length > 80 ? `${text.slice(0, 80)}…` : (value ?? "nothing");
}
