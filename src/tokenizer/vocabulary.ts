/** A byte-level BPE vocabulary as data: what a tokenizer.json says, with ids in place of spellings. */
import type { PreTokenizer } from "./pre-tokenizer.ts";

/** The special tokens of DeepSeek-V3, in the order of their ids. The bars are U+FF5C, the gaps U+2581. */
export const BEGIN_OF_SENTENCE = "<｜begin▁of▁sentence｜>";
export const END_OF_SENTENCE = "<｜end▁of▁sentence｜>";
export const PAD = "<｜▁pad▁｜>";

/** Larger vocabularies are refused: none exists, and pairs of ids must fit the integers of JavaScript. */
export const MAX_VOCAB_SIZE = 1 << 20;

/** A token that stands for itself in the text and is cut out before the text is split. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Whether decoding with `skipSpecial` leaves it out. */
  readonly special: boolean;
}

export interface Vocabulary {
  readonly preTokenizer: PreTokenizer;
  /** The spelling of the model's tokens by id: in the byte alphabet, or the content of an added token. */
  readonly tokens: readonly string[];
  /** The bytes of all tokens by id, added ones included. */
  readonly bytes: readonly Uint8Array[];
  /** (left, right, merged) ids of each merge, in the order of their ranks. */
  readonly merges: Uint32Array;
  readonly added: readonly AddedToken[];
  readonly bosId: number;
  readonly eosId: number;
  readonly padId: number;
}

/** The id of each of the 256 bytes. */
export function byteIds(vocabulary: Vocabulary): Uint32Array {
  const ids = new Uint32Array(256);
  const added = new Set(vocabulary.added.map((token) => token.id));
  vocabulary.bytes.forEach((bytes, id) => {
    if (bytes.length === 1 && !added.has(id)) ids[bytes[0]!] = id;
  });
  return ids;
}
