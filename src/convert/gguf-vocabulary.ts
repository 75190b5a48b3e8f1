/** A tokenizer as the metadata of a GGUF file: as many tokens as the embedding has rows. */

import { FormatError } from "../core/errors.ts";
import type { GgufEntry } from "../formats/index.ts";
import { checkTokenRows, readPreTokenizer, type Tokenizer } from "../tokenizer/index.ts";
import type { SourceTokenizer } from "./source-tokenizer.ts";

/** Kinds of token in `tokenizer.ggml.token_type`. **Source:** ggml-org/llama.cpp include/llama.h. */
const NORMAL = 1;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;

interface TokenizerJson {
  readonly pre_tokenizer: unknown;
  readonly added_tokens: readonly { readonly id: number; readonly content: string; readonly special: boolean }[];
  readonly model: {
    readonly vocab: Readonly<Record<string, number>>;
    readonly merges: readonly (readonly [string, string])[];
  };
}

/**
 * @param rows - of the embedding; ids without a token become `[PAD n]`.
 * @throws FormatError when the tokenizer has more ids than rows.
 */
export async function ggufVocabulary(source: SourceTokenizer, rows: number): Promise<Map<string, GgufEntry>> {
  const tokenizer = await source.load();
  checkTokenRows(tokenizer, rows, "tokenizer");
  const json = JSON.parse(tokenizer.toJson()) as TokenizerJson;
  const tokens = Array.from({ length: rows }, (_, id) => `[PAD${id}]`);
  const types = Array.from({ length: rows }, () => UNUSED);
  for (const [token, id] of Object.entries(json.model.vocab)) [tokens[id], types[id]] = [token, NORMAL];
  for (const { id, content, special } of json.added_tokens) {
    [tokens[id], types[id]] = [content, special ? CONTROL : USER_DEFINED];
  }
  return new Map<string, GgufEntry>([
    ["tokenizer.ggml.model", { type: "text", value: "gpt2" }],
    ["tokenizer.ggml.pre", { type: "text", value: preOf(json) }],
    ["tokenizer.ggml.tokens", { type: "list", of: "text", values: tokens }],
    ["tokenizer.ggml.token_type", { type: "list", of: "i32", values: types }],
    ["tokenizer.ggml.merges", { type: "list", of: "text", values: json.model.merges.map((pair) => pair.join(" ")) }],
    ...roleEntries(tokenizer),
    ["tokenizer.ggml.add_bos_token", { type: "bool", value: tokenizer.addBos }],
    ["tokenizer.ggml.add_eos_token", { type: "bool", value: false }],
    ...templateEntry(source.template),
  ]);
}

function preOf({ pre_tokenizer: spelled }: TokenizerJson): string {
  const name = readPreTokenizer(spelled);
  if (name === undefined) throw new FormatError("tokenizer", "must have a pre-tokenizer of the family");
  return name;
}

function roleEntries({ bosId, eosId, padId }: Tokenizer): [string, GgufEntry][] {
  const roles = Object.entries({ bos: bosId, eos: eosId, padding: padId });
  return roles.map(([role, id]) => [`tokenizer.ggml.${role}_token_id`, { type: "u32", value: id }]);
}

function templateEntry(template: string | undefined): [string, GgufEntry][] {
  return template === undefined ? [] : [["tokenizer.chat_template", { type: "text", value: template }]];
}
