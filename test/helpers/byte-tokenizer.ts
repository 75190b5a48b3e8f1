/** A tokenizer without merges: begin, end and pad, then one token for each byte. Needs no training. */

import { Tokenizer } from "../../src/tokenizer/index.ts";
import { BYTE_CHARACTERS } from "../../src/tokenizer/byte-alphabet.ts";
import { createPlainEncoder } from "../../src/tokenizer/bpe.ts";
import { BEGIN_OF_SENTENCE, END_OF_SENTENCE, PAD, type Vocabulary } from "../../src/tokenizer/vocabulary.ts";

const SPECIAL = [BEGIN_OF_SENTENCE, END_OF_SENTENCE, PAD];

/** The id of a byte is the byte plus this. */
export const FIRST_BYTE_ID = SPECIAL.length;

export function createByteTokenizer(): Tokenizer {
  const utf8 = new TextEncoder();
  const vocabulary: Vocabulary = {
    preTokenizer: "deepseek-v3",
    tokens: [...SPECIAL, ...BYTE_CHARACTERS],
    bytes: [...SPECIAL.map((token) => utf8.encode(token)), ...BYTE_CHARACTERS.map((_, byte) => Uint8Array.of(byte))],
    merges: new Uint32Array(0),
    added: SPECIAL.map((content, id) => ({ id, content, special: true })),
    bosId: 0,
    eosId: 1,
    padId: 2,
  };
  return new Tokenizer(vocabulary, createPlainEncoder(vocabulary));
}
