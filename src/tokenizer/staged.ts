/**
 * The pre-tokenizers of DeepSeek LLM (also MoE-16B, V2) and DeepSeek Coder: a row of isolated splits, each over the pieces
 * of the one before it. The same in Rust: `native/tokenizer/src/staged.rs`.
 *
 * **Source:** their tokenizer.json files; llama.cpp src/llama-vocab.cpp, which writes `\p{N}+` for the numbers of LLM. That
 * gives the same ids, since no token of the vocabulary holds two numbers.
 */
import * as unicode from "./unicode.ts";

/**
 * One isolated split: each match is a piece, and so is what lies between two matches. `one` matches a character of the
 * class, `run` the longest run of it, `spacedRun` the same with one whitespace character before it if there is one.
 */
type Split =
  | { readonly kind: "one" | "run" | "spacedRun"; readonly mask: number }
  /** Whitespace at the end. */
  | { readonly kind: "trailingSpace" };

const NEWLINE = 1;
const SPACE = 2;
const LETTER = 4;
const PUNCTUATION = 8;
const CJK = 16;
const NUMBER = 32;

const FIRST: readonly Split[] = [
  { kind: "one", mask: NEWLINE },
  { kind: "spacedRun", mask: LETTER },
  { kind: "spacedRun", mask: PUNCTUATION },
];
const LAST: readonly Split[] = [
  { kind: "run", mask: CJK },
  { kind: "one", mask: NUMBER },
];

type Emit = (piece: string) => void;

/** Calls `emit` with each piece of `text` as DeepSeek LLM cuts it, in order; the pieces joined are `text`. */
export function forEachLlmPiece(text: string, emit: Emit): void {
  splitBy([...FIRST, { kind: "trailingSpace" }, ...LAST], llmClasses(), text, emit);
}

/** The same as DeepSeek Coder cuts it. */
export function forEachCoderPiece(text: string, emit: Emit): void {
  splitBy([...FIRST, ...LAST], coderClasses(), text, emit);
}

function splitBy(splits: readonly Split[], classes: Uint8Array, text: string, emit: Emit): void {
  const split = splits[0];
  if (split === undefined) return emit(text);
  const rest = splits.slice(1);
  const part = (from: number, to: number): void => {
    if (to > from) splitBy(rest, classes, text.slice(from, to), emit);
  };
  if (split.kind === "trailingSpace") {
    const end = trimmedLength(classes, text);
    part(0, end);
    return part(end, text.length);
  }
  let from = 0;
  for (let at = 0; at < text.length;) {
    const end = matchEnd(split, classes, text, at);
    if (end === at) {
      at += text.codePointAt(at)! > 0xffff ? 2 : 1;
      continue;
    }
    part(from, at);
    part(at, end);
    from = end;
    at = end;
  }
  part(from, text.length);
}

/** The end of the match at `at`; `at` itself when there is none. */
function matchEnd(
  split: Exclude<Split, { kind: "trailingSpace" }>,
  classes: Uint8Array,
  text: string,
  at: number,
): number {
  const { kind, mask } = split;
  if (kind === "one") return at + lengthOf(classes, text, at, mask);
  if (kind === "run") return runEnd(classes, text, at, mask);
  const word = at + lengthOf(classes, text, at, SPACE);
  const end = runEnd(classes, text, word, mask);
  return end > word ? end : runEnd(classes, text, at, mask);
}

function runEnd(classes: Uint8Array, text: string, start: number, mask: number): number {
  let at = start;
  for (let length = lengthOf(classes, text, at, mask); length > 0; length = lengthOf(classes, text, at, mask))
    at += length;
  return at;
}

/** The length of the character at `at`; 0 when its class is not in `mask`, and at the end. */
function lengthOf(classes: Uint8Array, text: string, at: number, mask: number): number {
  const code = text.codePointAt(at);
  if (code === undefined || !(classes[code]! & mask)) return 0;
  return code > 0xffff ? 2 : 1;
}

/** The length without the whitespace at the end, all of which is one unit long. */
function trimmedLength(classes: Uint8Array, text: string): number {
  let end = text.length;
  while (end > 0 && classes[text.charCodeAt(end - 1)]! & SPACE) end--;
  return end;
}

let llmTable: Uint8Array | undefined;
let coderTable: Uint8Array | undefined;

function llmClasses(): Uint8Array {
  if (llmTable !== undefined) return llmTable;
  const table = sharedClasses();
  mark(table, CASED_LETTERS, LETTER);
  mark(table, LLM_PUNCTUATION, PUNCTUATION);
  return (llmTable = table);
}

function coderClasses(): Uint8Array {
  if (coderTable !== undefined) return coderTable;
  const table = sharedClasses();
  unicode.characterClasses().forEach((kind, code) => {
    if (kind & unicode.LETTER) table[code]! |= LETTER;
    if (kind & unicode.PUNCTUATION) table[code]! |= PUNCTUATION;
  });
  return (coderTable = table);
}

/** The classes that both rows ask for, by code point. */
function sharedClasses(): Uint8Array {
  const table = unicode.characterClasses().map((kind) => {
    if (kind & unicode.NUMBER) return NUMBER;
    return (kind & unicode.NEWLINE ? NEWLINE : 0) | (kind & unicode.WHITESPACE ? SPACE : 0);
  });
  mark(table, CJK_RANGES, CJK);
  return table;
}

type Ranges = readonly (readonly [first: number, last: number])[];

function mark(table: Uint8Array, ranges: Ranges, kind: number): void {
  for (const [first, last] of ranges) for (let code = first; code <= last; code++) table[code]! |= kind;
}

const CJK_RANGES: Ranges = [
  [0x4e00, 0x9fa5],
  [0x800, 0x4e00],
  [0xac00, 0xd7ff],
];

const LLM_PUNCTUATION: Ranges = [
  [0x21, 0x2f],
  [0x3a, 0x7e],
  [0xff01, 0xff0f],
  [0xff1a, 0xff5e],
  [0x2018, 0x201f],
  [0x3000, 0x3002],
];

/** Letters that have case, as Unicode 12 lists them. */
// oxfmt-ignore
const CASED_LETTERS: Ranges = [
  [0x41, 0x5a], [0x61, 0x7a], [0xb5, 0xb5], [0xc0, 0xd6], [0xd8, 0xf6], [0xf8, 0x1ba], [0x1bc, 0x1bf],
  [0x1c4, 0x293], [0x295, 0x2af], [0x370, 0x373], [0x376, 0x376], [0x377, 0x377], [0x37b, 0x37d], [0x37f, 0x37f],
  [0x386, 0x386], [0x388, 0x38a], [0x38c, 0x38c], [0x38e, 0x3a1], [0x3a3, 0x3f5], [0x3f7, 0x481], [0x48a, 0x52f],
  [0x531, 0x556], [0x10a0, 0x10c5], [0x13a0, 0x13f5], [0x13f8, 0x13fd], [0x1c90, 0x1cba], [0x1cbd, 0x1cbf],
  [0x1d00, 0x1d2b], [0x1d6b, 0x1d77], [0x1d79, 0x1d9a], [0x1e00, 0x1f15], [0x1f18, 0x1f1d], [0x1f20, 0x1f45],
  [0x1f48, 0x1f4d], [0x1f50, 0x1f57], [0x1f59, 0x1f59], [0x1f5b, 0x1f5b], [0x1f5d, 0x1f5d], [0x1f5f, 0x1f7d],
  [0x1f80, 0x1fb4], [0x1fb6, 0x1fbc], [0x1fbe, 0x1fbe], [0x1fc2, 0x1fc4], [0x1fc6, 0x1fcc], [0x1fd0, 0x1fd3],
  [0x1fd6, 0x1fdb], [0x1fe0, 0x1fec], [0x1ff2, 0x1ff4], [0x1ff6, 0x1ffc], [0x2102, 0x2102], [0x2107, 0x2107],
  [0x210a, 0x2113], [0x2115, 0x2115], [0x2119, 0x211d], [0x2124, 0x2124], [0x2126, 0x2126], [0x2128, 0x2128],
  [0x212a, 0x212d], [0x212f, 0x2134], [0x2139, 0x2139], [0x213c, 0x213f], [0x2145, 0x2149], [0x214e, 0x214e],
  [0x2183, 0x2183], [0x2184, 0x2184], [0x2c00, 0x2c7b], [0x2c7e, 0x2ce4], [0x2ceb, 0x2cee], [0x2cf2, 0x2cf2],
  [0x2cf3, 0x2cf3], [0xa640, 0xa66d], [0xa680, 0xa69b], [0xa722, 0xa76f], [0xa771, 0xa787], [0xa78b, 0xa78e],
  [0xab70, 0xabbf], [0xfb00, 0xfb06], [0xfb13, 0xfb17], [0xff21, 0xff3a], [0xff41, 0xff5a], [0x10400, 0x1044f],
  [0x104b0, 0x104d3], [0x104d8, 0x104fb], [0x10c80, 0x10cb2], [0x10cc0, 0x10cf2], [0x118a0, 0x118df],
  [0x1e900, 0x1e943],
];

/** The same ranges as the regular expression in tokenizer.json spells them. */
export const CASED_LETTER_CLASS = CASED_LETTERS.map(([first, last]) => {
  const [from, to] = [String.fromCodePoint(first), String.fromCodePoint(last)];
  return first === last ? from : `${from}-${to}`;
}).join("");
