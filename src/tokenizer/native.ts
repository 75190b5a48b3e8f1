/** The native tokenizer: the same ids as `bpe.ts`, and training. */
import { createRequire } from "node:module";
import { type BpeEncoder, createPlainEncoder } from "./bpe.ts";
import { byteIds, type Vocabulary } from "./vocabulary.ts";

/** What `native/node/src/tokenizer.rs` exports. */
interface TokenizerAddon {
  readonly BpeEncoder: new (
    byteIds: Uint32Array,
    merges: Uint32Array,
    added: readonly string[],
    addedIds: Uint32Array,
    preTokenizer: string,
  ) => {
    encode(text: string, allowSpecial: boolean): Int32Array;
    encodeMany(texts: readonly string[], allowSpecial: boolean): { ids: Int32Array; starts: readonly number[] };
  };
  readonly BpeTrainer: new (
    vocabSize: number,
    specialTokens: readonly string[],
  ) => {
    feed(text: string): void;
    /** (left, right, merged) ids of each merge. */
    train(): Uint32Array;
  };
}

/** The addon, or undefined where it has not been built. */
export function tokenizerAddon(): TokenizerAddon | undefined {
  try {
    return createRequire(import.meta.url)("../../native/fathom.node") as TokenizerAddon;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "MODULE_NOT_FOUND") return undefined;
    throw error;
  }
}

/** The fastest encoder that there is here. */
export function createEncoder(vocabulary: Vocabulary): BpeEncoder {
  const addon = tokenizerAddon();
  return addon === undefined ? createPlainEncoder(vocabulary) : createNativeEncoder(vocabulary, addon);
}

function createNativeEncoder(vocabulary: Vocabulary, addon: TokenizerAddon): BpeEncoder {
  const { added, merges, preTokenizer } = vocabulary;
  const contents = added.map((token) => token.content);
  const addedIds = Uint32Array.from(added, (token) => token.id);
  const encoder = new addon.BpeEncoder(byteIds(vocabulary), merges, contents, addedIds, preTokenizer);
  return {
    encode: (text, allowSpecial) => encoder.encode(text, allowSpecial),
    encodeMany: (texts, allowSpecial) => {
      const { ids, starts } = encoder.encodeMany(texts, allowSpecial);
      return texts.map((_, i) => ids.subarray(starts[i], starts[i + 1]));
    },
  };
}
