/**
 * The DeepSeek-V3 pre-tokenizer: three successive isolated splits, written as one scanner that runs in linear time.
 *
 * 1. `\p{N}{1,3}`
 * 2. `[一-龥぀-ゟ゠-ヿ]+`
 * 3. ASCII punctuation and `[A-Za-z]+`, or `[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+`, or ` ?[\p{P}\p{S}]+[\r\n]*`, or
 *    `\s*[\r\n]+`, or `\s+(?!\S)`, or `\s+`
 *
 * A split only sees the pieces of the one before it, so a number or the border of a CJK run is the end of the text for
 * split 3. The same scanner over UTF-8 stands in `native/tokenizer/src/pieces.rs`.
 */
import { characterClasses, LETTER, MARK, NEWLINE, NUMBER, PUNCTUATION, SYMBOL, WHITESPACE } from "./unicode.ts";

/** No character: the end of the text or of the segment that split 3 sees. */
const END = 0;

/** Calls `emit` with each piece of `text`, in order; the pieces joined are `text`, which must be well-formed. */
export function forEachPiece(text: string, emit: (piece: string) => void): void {
  const scanner = new Scanner(text);
  for (let at = 0; at < text.length;) {
    const end = scanner.pieceEnd(at);
    emit(text.slice(at, end));
    at = end;
  }
}

class Scanner {
  readonly #text: string;
  readonly #classes = characterClasses();
  /** Whether the segment that split 3 sees is a CJK run. */
  #inCjk = false;

  constructor(text: string) {
    this.#text = text;
  }

  pieceEnd(at: number): number {
    const code = this.#codeAt(at);
    if (this.#classes[code] === NUMBER) return this.#numberEnd(at);
    this.#inCjk = isCjk(code);
    const end = this.#matchEnd(at);
    return end > at ? end : this.#unmatchedEnd(at);
  }

  /** Up to three numbers. */
  #numberEnd(start: number): number {
    let at = start;
    for (let n = 0; n < 3 && at < this.#text.length; n++) {
      const code = this.#codeAt(at);
      if (this.#classes[code] !== NUMBER) break;
      at += widthOf(code);
    }
    return at;
  }

  /** The first position after `start` where split 3 matches, or the segment's end. */
  #unmatchedEnd(start: number): number {
    let at = start;
    do at = this.#after(at);
    while (this.#classAt(at) !== END && this.#matchEnd(at) === at);
    return at;
  }

  /** The end of the match of split 3 at `at`; `at` itself when there is none. */
  #matchEnd(at: number): number {
    const first = this.#text.charCodeAt(at);
    if (isAsciiPunctuation(first) && isAsciiLetter(this.#text.charCodeAt(at + 1))) return this.#asciiWordEnd(at + 1);
    const kind = this.#classAt(at);
    if (kind & (LETTER | MARK)) return this.#runEnd(at, LETTER | MARK);
    if (!(kind & (NEWLINE | PUNCTUATION | SYMBOL))) {
      const word = this.#after(at);
      if (this.#classAt(word) & (LETTER | MARK)) return this.#runEnd(word, LETTER | MARK);
    }
    const marks = first === 0x20 ? at + 1 : at;
    const marksEnd = this.#runEnd(marks, PUNCTUATION | SYMBOL);
    if (marksEnd > marks) return this.#runEnd(marksEnd, NEWLINE);
    return kind & WHITESPACE ? this.#whitespaceEnd(at) : at;
  }

  /**
   * `\s*[\r\n]+|\s+(?!\S)|\s+`: through the last newline of the run; else the run without its last character, which is
   * left for the word that follows, if one does.
   */
  #whitespaceEnd(start: number): number {
    let at = start;
    let afterNewline = start;
    for (let kind = this.#classAt(at); kind & WHITESPACE; kind = this.#classAt(at)) {
      at++;
      if (kind & NEWLINE) afterNewline = at;
    }
    if (afterNewline > start) return afterNewline;
    return this.#classAt(at) === END || at === start + 1 ? at : at - 1;
  }

  #asciiWordEnd(start: number): number {
    let at = start;
    while (isAsciiLetter(this.#text.charCodeAt(at))) at++;
    return at;
  }

  /** The end of the run of characters from `start` whose class is in `mask`. */
  #runEnd(start: number, mask: number): number {
    let at = start;
    while (this.#classAt(at) & mask) at = this.#after(at);
    return at;
  }

  #classAt(at: number): number {
    if (at >= this.#text.length) return END;
    const code = this.#codeAt(at);
    const kind = this.#classes[code]!;
    return kind === NUMBER || isCjk(code) !== this.#inCjk ? END : kind;
  }

  #after(at: number): number {
    return at + widthOf(this.#codeAt(at));
  }

  #codeAt(at: number): number {
    const unit = this.#text.charCodeAt(at);
    return (unit & 0xfc00) === 0xd800 ? this.#text.codePointAt(at)! : unit;
  }
}

function widthOf(code: number): number {
  return code > 0xffff ? 2 : 1;
}

function isCjk(code: number): boolean {
  return code >= 0x3040 && (code <= 0x30ff || (code >= 0x4e00 && code <= 0x9fa5));
}

function isAsciiPunctuation(code: number): boolean {
  return code > 0x20 && code < 0x7f && !isAsciiLetter(code) && !(code >= 0x30 && code <= 0x39);
}

function isAsciiLetter(code: number): boolean {
  return (code >= 0x61 && code <= 0x7a) || (code >= 0x41 && code <= 0x5a);
}
