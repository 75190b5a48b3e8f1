/** A byte-level BPE vocabulary as data: what a tokenizer.json says, with ids in place of spellings. */
import { BYTE_CHARACTERS } from "./byte-alphabet.ts";
import type { PreTokenizer } from "./pre-tokenizer.ts";
import type { TokenTable } from "./token-table.ts";

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
  /** The bytes of all tokens by id, added ones included. */
  readonly tokens: TokenTable;
  /** The ids below this are the model's own; those from here on are added. */
  readonly nModelTokens: number;
  /** (left, right, merged) ids of each merge, in the order of their ranks. */
  readonly merges: Uint32Array;
  readonly added: readonly AddedToken[];
  readonly bosId: number;
  readonly eosId: number;
  readonly padId: number;
  /** Whether its files ask for the begin-of-sentence token before a text. */
  readonly addBos: boolean;
}

/** The id of each of the 256 bytes, 0 for those that no token is. */
export function byteIds(vocabulary: Vocabulary): Uint32Array {
  return Uint32Array.from(BYTE_CHARACTERS, (character) => Math.max(0, vocabulary.tokens.find(character)));
}
