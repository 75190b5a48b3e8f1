/** The pre-tokenizers of the family: their names, which are those of GGUF, and their spelling in tokenizer.json. */
import { forEachPiece } from "./pieces.ts";
import { CASED_LETTER_CLASS, forEachCoderPiece, forEachLlmPiece } from "./staged.ts";

/** `deepseek-llm` is that of LLM, MoE-16B, V2, V2.5 and Coder-V2; `deepseek-v3` that of V3 and all that came after it. */
export const PRE_TOKENIZERS = ["deepseek-v3", "deepseek-llm", "deepseek-coder"] as const;

export type PreTokenizer = (typeof PRE_TOKENIZERS)[number];

type SplitPieces = (text: string, emit: (piece: string) => void) => void;

const SPLITTERS: Readonly<Record<PreTokenizer, SplitPieces>> = {
  "deepseek-v3": forEachPiece,
  "deepseek-llm": forEachLlmPiece,
  "deepseek-coder": forEachCoderPiece,
};

/** Calls `emit` with each piece of a well-formed text, in order. */
export function pieceSplitter(preTokenizer: PreTokenizer): SplitPieces {
  return SPLITTERS[preTokenizer];
}

const HAN_AND_HANGUL = "[一-龥\u0800-一가-\ud7ff]+";
const DIGITS = { type: "Digits", individual_digits: true };

/** The splits of each as its tokenizer.json spells them: regular expressions, or pre-tokenizers of their own. */
const SPLITS: Readonly<Record<PreTokenizer, readonly (string | Readonly<Record<string, unknown>>)[]>> = {
  "deepseek-v3": [
    String.raw`\p{N}{1,3}`,
    "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
  ],
  "deepseek-llm": [
    "[\r\n]",
    String.raw`\s?[${CASED_LETTER_CLASS}]+`,
    String.raw`\s?[!-/:-~！-／：-～‘-‟　-。]+`,
    String.raw`\s+$`,
    HAN_AND_HANGUL,
    DIGITS,
  ],
  "deepseek-coder": ["[\r\n]", String.raw`\s?\p{L}+`, String.raw`\s?\p{P}+`, HAN_AND_HANGUL, DIGITS],
};

const BYTE_LEVEL = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };

/** The value of `pre_tokenizer` in tokenizer.json. */
export function formatPreTokenizer(preTokenizer: PreTokenizer): { type: string; pretokenizers: unknown[] } {
  const splits = SPLITS[preTokenizer].map((split) =>
    typeof split === "string"
      ? { type: "Split", pattern: { Regex: split }, behavior: "Isolated", invert: false }
      : split,
  );
  return { type: "Sequence", pretokenizers: [...splits, BYTE_LEVEL] };
}

/** The one that a value of `pre_tokenizer` spells, undefined for any other. */
export function readPreTokenizer(value: unknown): PreTokenizer | undefined {
  const given = essenceOf(value);
  if (given === undefined) return undefined;
  return PRE_TOKENIZERS.find((name) => essenceOf(formatPreTokenizer(name)) === given);
}

/** What decides where a sequence splits, as a text; in NFC, since some copies of the letters are normalized. */
function essenceOf(value: unknown): string | undefined {
  const steps = (value as { pretokenizers?: unknown } | null | undefined)?.pretokenizers;
  return Array.isArray(steps) ? JSON.stringify(steps.map(stepEssence)).normalize("NFC") : undefined;
}

function stepEssence(step: unknown): unknown {
  if (typeof step !== "object" || step === null) return step;
  const {
    type,
    pattern,
    behavior,
    invert,
    add_prefix_space: prefix,
    use_regex: regex,
    individual_digits: single,
  } = step as Readonly<Record<string, unknown>>;
  const spelled = (pattern as { Regex?: unknown } | null | undefined)?.Regex ?? pattern;
  return [type, spelled, behavior, invert, prefix, regex, single];
}
