/** Byte-level BPE with the DeepSeek-V3 pre-tokenizer: encode and decode, anywhere. Training and files: `node.ts`. */
import { createPlainEncoder } from "./bpe.ts";
import { parseVocabulary } from "./tokenizer-json.ts";
import { Tokenizer } from "./tokenizer.ts";

export { Tokenizer, type DecodeOptions, type EncodeOptions, type StreamDecoder } from "./tokenizer.ts";

/**
 * The tokenizer that a parsed Hugging Face `tokenizer.json` describes, with the encoder in plain TypeScript.
 * @param config the parsed `tokenizer_config.json` beside it, for the names of the begin, end and pad tokens
 * @throws FormatError when a field is malformed, UnsupportedError when it is not byte-level BPE with V3's pre-tokenizer.
 */
export function parseTokenizer(json: unknown, config?: unknown): Tokenizer {
  const vocabulary = parseVocabulary(json, config, "tokenizer.json");
  return new Tokenizer(vocabulary, createPlainEncoder(vocabulary));
}
