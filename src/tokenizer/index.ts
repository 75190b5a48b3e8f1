/** Byte-level BPE with the pre-tokenizers of the family, and chat templates, anywhere. Training and files: `node.ts`. */
import { createPlainEncoder } from "./bpe.ts";
import { parseVocabulary } from "./tokenizer-json.ts";
import { Tokenizer } from "./tokenizer.ts";

export { renderJinja, type JinjaTemplate } from "./chat/jinja.ts";
export {
  segmentText,
  type ChatMessage,
  type RenderOptions,
  type Segment,
  type ToolCall,
  type ToolFunction,
} from "./chat/message.ts";
export {
  CHAT_TEMPLATES,
  type ChatTemplate,
  defaultChatTemplate,
  encodeSegments,
  renderChat,
} from "./chat/templates.ts";
export { beginsThinking, ThinkingSplitter, type AnswerPart } from "./chat/thinking.ts";
export { readPreTokenizer } from "./pre-tokenizer.ts";
export { checkTokenRows } from "./token-rows.ts";
export { Tokenizer, type DecodeOptions, type EncodeOptions, type StreamDecoder } from "./tokenizer.ts";

/**
 * The tokenizer that a parsed Hugging Face `tokenizer.json` describes, with the encoder in plain TypeScript.
 * @param config the parsed `tokenizer_config.json` beside it, for the names of the begin, end and pad tokens
 * @throws FormatError when a field is malformed, UnsupportedError when it is not byte-level BPE with a
 * pre-tokenizer of the family.
 */
export function parseTokenizer(json: unknown, config?: unknown): Tokenizer {
  const vocabulary = parseVocabulary(json, config, "tokenizer.json");
  return new Tokenizer(vocabulary, createPlainEncoder(vocabulary));
}
