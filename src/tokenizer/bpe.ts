/**
 * Encoding in plain TypeScript: the reference for the native encoder, and the encoder where there is none (browser).
 * Added tokens are cut out, the rest is split into pieces, and each piece is merged in the order of the ranks.
 */
import { IdBuffer } from "./id-buffer.ts";
import { Merger } from "./merges.ts";
import { pieceSplitter } from "./pre-tokenizer.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** Turns text into ids. */
export interface BpeEncoder {
  /** Without `allowSpecial`, added tokens in the text are encoded as plain text. */
  encode(text: string, allowSpecial: boolean): Int32Array;
  encodeMany(texts: readonly string[], allowSpecial: boolean): Int32Array[];
}

/** Pieces longer than this are rarely seen twice. */
const MAX_CACHED_UNITS = 64;
/** Entries of the cache; a full one is emptied, so that no text can make it grow. */
const MAX_CACHED_PIECES = 1 << 16;

export function createPlainEncoder(vocabulary: Vocabulary): BpeEncoder {
  const merger = new Merger(vocabulary);
  const forEachPiece = pieceSplitter(vocabulary.preTokenizer);
  const added = new AddedTokens(vocabulary);
  const cache = new Map<string, ArrayLike<number>>();
  const out = new IdBuffer();

  const encodePiece = (piece: string): ArrayLike<number> => {
    if (piece.length > MAX_CACHED_UNITS) return merger.merge(piece);
    const known = cache.get(piece);
    if (known !== undefined) return known;
    const ids = merger.merge(piece);
    if (cache.size === MAX_CACHED_PIECES) cache.clear();
    cache.set(piece, ids);
    return ids;
  };
  const encodeText = (words: string): void => forEachPiece(words, (piece) => out.append(encodePiece(piece)));

  const encode = (text: string, allowSpecial: boolean): Int32Array => {
    // A text that failed may have left ids.
    out.clear();
    const wellFormed = withoutLoneSurrogates(text);
    if (allowSpecial) added.cut(wellFormed, encodeText, (id) => out.push(id));
    else encodeText(wellFormed);
    return out.take();
  };

  return { encode, encodeMany: (texts, allowSpecial) => texts.map((text) => encode(text, allowSpecial)) };
}

/** Unpaired surrogates become U+FFFD. Most texts have no surrogates, which a plain loop sees fastest. */
function withoutLoneSurrogates(text: string): string {
  for (let i = 0; i < text.length; i++) {
    if ((text.charCodeAt(i) & 0xf800) === 0xd800) return text.replaceAll(/\p{Surrogate}/gu, "\ufffd");
  }
  return text;
}

/** The added tokens of a vocabulary, found leftmost first and longest first. */
class AddedTokens {
  readonly #ids: ReadonlyMap<string, number>;
  /** Matches what a token may begin with: most texts have little of that. */
  readonly #starts: RegExp;
  /** Matches the longest token at its place. */
  readonly #tokens: RegExp;

  constructor({ added }: Vocabulary) {
    this.#ids = new Map(added.map(({ content, id }) => [content, id]));
    const longestFirst = [...this.#ids.keys()].toSorted((a, b) => b.length - a.length);
    const starts = [...new Set(longestFirst.map((content) => String.fromCodePoint(content.codePointAt(0)!)))];
    this.#starts = new RegExp(starts.length === 0 ? "(?!)" : starts.map(escaped).join("|"), "gu");
    this.#tokens = new RegExp(longestFirst.map(escaped).join("|"), "uy");
  }

  /** Hands on the texts between added tokens and the ids of these, in order. */
  cut(text: string, onText: (text: string) => void, onToken: (id: number) => void): void {
    let from = 0;
    this.#starts.lastIndex = 0;
    for (let start = this.#starts.exec(text); start !== null; start = this.#starts.exec(text)) {
      this.#tokens.lastIndex = start.index;
      const token = this.#tokens.exec(text)?.[0];
      if (token === undefined) continue;
      onText(text.slice(from, start.index));
      onToken(this.#ids.get(token)!);
      from = start.index + token.length;
      this.#starts.lastIndex = from;
    }
    onText(from === 0 ? text : text.slice(from));
  }
}

function escaped(content: string): string {
  return content.replaceAll(/[\\^$.*+?()[\]{}|/]/g, String.raw`\$&`);
}
