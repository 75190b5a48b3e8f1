/** Learning a byte-level BPE vocabulary from text. */
import { ConfigError, UnsupportedError } from "../core/errors.ts";
import { ALPHABET_BYTES, BYTE_CHARACTERS } from "./byte-alphabet.ts";
import { createEncoder, tokenizerAddon } from "./native.ts";
import { TokenTable } from "./token-table.ts";
import { Tokenizer } from "./tokenizer.ts";
import { BEGIN_OF_SENTENCE, END_OF_SENTENCE, MAX_VOCAB_SIZE, PAD, type Vocabulary } from "./vocabulary.ts";

export interface TrainTokenizerOptions {
  /** The number of ids: special tokens, 256 bytes, and one for each merge. */
  readonly vocabSize: number;
  /** Special tokens besides begin-of-sentence (id 0), end-of-sentence (1) and pad (2); their ids follow. */
  readonly specialTokens?: readonly string[];
}

/**
 * A tokenizer learned from `documents`, which are read one by one and not kept. Each step merges the most frequent pair
 * of neighbouring tokens within a piece; among equals the one with the smallest ids. So the same documents give the same
 * tokenizer; in any order, too, while their distinct pieces fit into the memory that is set aside for counting.
 *
 *     const tokenizer = await trainTokenizer(["to be or not to be"], { vocabSize: 264 });
 *     tokenizer.decode(tokenizer.encode("to be")); // "to be"
 *
 * @throws ConfigError when the vocabulary is too small for the bytes, or larger than the text can fill.
 */
export async function trainTokenizer(
  documents: AsyncIterable<string> | Iterable<string>,
  options: TrainTokenizerOptions,
): Promise<Tokenizer> {
  const special = [BEGIN_OF_SENTENCE, END_OF_SENTENCE, PAD, ...(options.specialTokens ?? [])];
  checkOptions(options.vocabSize, special);
  const addon = tokenizerAddon();
  if (addon === undefined) {
    const cure = "build it with `npm run build`";
    throw new UnsupportedError("tokenizer.train", "needs the native library", "no native/fathom.node", [], cure);
  }
  const trainer = new addon.BpeTrainer(options.vocabSize, special);
  for await (const document of documents) trainer.feed(document);
  const vocabulary = vocabularyOf(special, trainer.train());
  const reached = vocabulary.nModelTokens;
  if (reached < options.vocabSize) {
    const cure = `give more text, or set vocab_size to ${reached}`;
    throw new ConfigError("vocab_size", `must be at most ${reached} for this text`, options.vocabSize, cure);
  }
  return new Tokenizer(vocabulary, createEncoder(vocabulary));
}

function checkOptions(vocabSize: number, special: readonly string[]): void {
  const repeated = special.find((token, i) => token === "" || special.indexOf(token) < i);
  if (repeated !== undefined) {
    throw new ConfigError("tokenizer.special_tokens", "must be distinct and not empty", repeated);
  }
  const smallest = special.length + 256;
  if (!Number.isInteger(vocabSize) || vocabSize < smallest || vocabSize > MAX_VOCAB_SIZE) {
    const rule = `must be an integer from ${smallest} (256 bytes and ${special.length} special tokens) to ${MAX_VOCAB_SIZE}`;
    throw new ConfigError("vocab_size", rule, vocabSize, "4096 suits small models, 32768 larger ones");
  }
}

function vocabularyOf(special: readonly string[], merges: Uint32Array): Vocabulary {
  const spellings = [...special, ...ALPHABET_BYTES.map((byte) => BYTE_CHARACTERS[byte]!)];
  for (let i = 0; i < merges.length; i += 3) {
    spellings[merges[i + 2]!] = spellings[merges[i]!]! + spellings[merges[i + 1]!]!;
  }
  const nModelTokens = spellings.length;
  const tokens = new TokenTable(nModelTokens);
  const utf8 = new TextEncoder();
  spellings.forEach((spelling, id) => {
    if (id < special.length) tokens.set(id, utf8.encode(spelling));
    else tokens.spell(id, spelling);
  });
  const added = special.map((content, id) => ({ id, content, special: true }));
  const roles = { bosId: 0, eosId: 1, padId: 2, addBos: true };
  return { preTokenizer: "deepseek-v3", tokens, nModelTokens, merges, added, ...roles };
}
