/** A tokenizer without merges: begin, end and pad, then one token for each byte. Needs no training. */

import { Tokenizer } from "../../src/tokenizer/index.ts";
import { BYTE_CHARACTERS } from "../../src/tokenizer/byte-alphabet.ts";
import { createPlainEncoder } from "../../src/tokenizer/bpe.ts";
import { TokenTable } from "../../src/tokenizer/token-table.ts";
import { BEGIN_OF_SENTENCE, END_OF_SENTENCE, PAD, type Vocabulary } from "../../src/tokenizer/vocabulary.ts";

const SPECIAL = [BEGIN_OF_SENTENCE, END_OF_SENTENCE, PAD];

/** The id of a byte is the byte plus this. */
export const FIRST_BYTE_ID = SPECIAL.length;

export function createByteTokenizer(): Tokenizer {
  const utf8 = new TextEncoder();
  const tokens = new TokenTable(FIRST_BYTE_ID + BYTE_CHARACTERS.length);
  for (const [id, token] of SPECIAL.entries()) tokens.set(id, utf8.encode(token));
  for (const [byte, character] of BYTE_CHARACTERS.entries()) tokens.spell(FIRST_BYTE_ID + byte, character);
  const vocabulary: Vocabulary = {
    preTokenizer: "deepseek-v3",
    tokens,
    nModelTokens: tokens.size,
    merges: new Uint32Array(0),
    added: SPECIAL.map((content, id) => ({ id, content, special: true })),
    bosId: 0,
    eosId: 1,
    padId: 2,
    addBos: true,
  };
  return new Tokenizer(vocabulary, createPlainEncoder(vocabulary));
}
