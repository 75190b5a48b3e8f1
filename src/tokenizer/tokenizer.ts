/** Text to ids and back. The encoder is handed in: native where there is one, plain TypeScript elsewhere. */
import { ConfigError } from "../core/errors.ts";
import type { BpeEncoder } from "./bpe.ts";
import type { PreTokenizer } from "./pre-tokenizer.ts";
import { formatTokenizerConfigJson, formatTokenizerJson } from "./tokenizer-json.ts";
import type { Vocabulary } from "./vocabulary.ts";

export interface EncodeOptions {
  /** Puts the begin-of-sentence token in front. Default false. */
  readonly addBos?: boolean;
  /**
   * Whether added tokens written in the text become their ids, as a chat template needs. Default true. With false they
   * are plain text: for text from outside.
   */
  readonly allowSpecial?: boolean;
}

export interface DecodeOptions {
  /** Leaves special tokens out. Added tokens that are not special, such as `<｜User｜>`, stay. Default false. */
  readonly skipSpecial?: boolean;
}

/** Turns ids into text one by one; a piece of text comes out as soon as its characters are complete. */
export interface StreamDecoder {
  /** @throws ConfigError when `id` is not in the vocabulary. */
  push(id: number): string;
  /** What is left; an unfinished character becomes U+FFFD. The decoder is then as new. */
  flush(): string;
}

const NO_BYTES = new Uint8Array(0);
const NO_IDS: ReadonlySet<number> = new Set();

export class Tokenizer {
  /** The number of ids, added tokens included; ids run from 0 to `vocabSize - 1`. */
  readonly vocabSize: number;
  readonly bosId: number;
  readonly eosId: number;
  readonly padId: number;
  /** Whether its files ask for the begin-of-sentence token before a text. */
  readonly addBos: boolean;
  readonly preTokenizer: PreTokenizer;
  readonly #vocabulary: Vocabulary;
  readonly #encoder: BpeEncoder;
  readonly #idOfAdded: ReadonlyMap<string, number>;
  readonly #specialIds: ReadonlySet<number>;

  constructor(vocabulary: Vocabulary, encoder: BpeEncoder) {
    this.vocabSize = vocabulary.tokens.size;
    this.bosId = vocabulary.bosId;
    this.eosId = vocabulary.eosId;
    this.padId = vocabulary.padId;
    this.addBos = vocabulary.addBos;
    this.preTokenizer = vocabulary.preTokenizer;
    this.#vocabulary = vocabulary;
    this.#encoder = encoder;
    this.#idOfAdded = new Map(vocabulary.added.map(({ content, id }) => [content, id]));
    this.#specialIds = new Set(vocabulary.added.filter((token) => token.special).map((token) => token.id));
  }

  /** The ids of `text`. An unpaired surrogate, which UTF-8 cannot hold, is read as U+FFFD. */
  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const ids = this.#encoder.encode(text, options.allowSpecial ?? true);
    return options.addBos === true ? prepend(this.bosId, ids) : ids;
  }

  /** The ids of each text; with the native encoder on all cores. The results can be views of one buffer. */
  encodeMany(texts: readonly string[], options: EncodeOptions = {}): Int32Array[] {
    const encoded = this.#encoder.encodeMany(texts, options.allowSpecial ?? true);
    return options.addBos === true ? encoded.map((ids) => prepend(this.bosId, ids)) : encoded;
  }

  /**
   * The text of `ids`; bytes that are not UTF-8 become U+FFFD.
   * @throws ConfigError when an id is not in the vocabulary.
   */
  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    const skip = this.#skipped(options);
    const parts = Array.from(ids, (id) => (skip.has(id) ? NO_BYTES : this.#bytesOf(id)));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(concat(parts));
  }

  createDecoder(options: DecodeOptions = {}): StreamDecoder {
    const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
    const skip = this.#skipped(options);
    return {
      push: (id) => (skip.has(id) ? "" : utf8.decode(this.#bytesOf(id), { stream: true })),
      flush: () => utf8.decode(),
    };
  }

  /** The id of a token as tokenizer.json spells it (`Ġthe`, `<｜User｜>`). */
  tokenToId(token: string): number | undefined {
    const id = this.#idOfAdded.get(token) ?? this.#vocabulary.tokens.find(token);
    return id < 0 ? undefined : id;
  }

  /** The content of a Hugging Face `tokenizer.json`. */
  toJson(): string {
    return formatTokenizerJson(this.#vocabulary);
  }

  /** UTF-8 bytes of every id, 0 for special tokens: those of a text's ids sum to its own. */
  tokenBytes(): Uint32Array {
    return Uint32Array.from({ length: this.vocabSize }, (_, id) =>
      this.#specialIds.has(id) ? 0 : this.#vocabulary.tokens.lengthOf(id),
    );
  }

  /** The content of the `tokenizer_config.json` beside it. */
  toConfigJson(): string {
    return formatTokenizerConfigJson(this.#vocabulary);
  }

  #skipped(options: DecodeOptions): ReadonlySet<number> {
    return options.skipSpecial === true ? this.#specialIds : NO_IDS;
  }

  #bytesOf(id: number): Uint8Array {
    const { tokens } = this.#vocabulary;
    if (tokens.has(id)) return tokens.bytesOf(id);
    throw new ConfigError("tokenizer.decode", `ids must be integers from 0 to ${this.vocabSize - 1}`, id);
  }
}

function prepend(id: number, ids: Int32Array): Int32Array {
  const out = new Int32Array(ids.length + 1);
  out[0] = id;
  out.set(ids, 1);
  return out;
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
