/**
 * Reading a tokenizer.json without the object of 128,000 members that `JSON.parse` makes of its vocabulary: tokens and merges
 * are scanned from the bytes, the rest is parsed. What the scan does not expect is left to `JSON.parse` and its messages.
 */

import { isUtf8 } from "node:buffer";

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const [OPEN_LIST, END_LIST, OPEN_OBJECT, END_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];
const [ZERO, NINE] = [0x30, 0x39];
const [SPACE, TAB, LINE_FEED, RETURN] = [0x20, 0x09, 0x0a, 0x0d];

interface ScannedTokenizer {
  /** The file without the tokens of `model.vocab`. */
  readonly json: unknown;
  /** The tokens by id. */
  readonly tokens: readonly string[];
}

/** The file's content; undefined when it is not written as tokenizers are: `JSON.parse` then says what is wrong. */
export function scanTokenizerJson(bytes: Uint8Array): ScannedTokenizer | undefined {
  if (!isUtf8(bytes)) return undefined;
  try {
    return new Scanner(bytes).scan();
  } catch (error) {
    if (error instanceof UnexpectedByte || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

class UnexpectedByte extends Error {}

class Scanner {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  scan(): ScannedTokenizer {
    const found: { tokens?: readonly string[]; merges?: readonly unknown[] } = {};
    const rest: string[] = [];
    let from = 0;
    // What stands in place of the scanned part is empty, so that the rest stays JSON.
    const cut = (start: number, empty: string): void => {
      rest.push(this.#decode(from, start), empty);
      from = this.#at;
    };
    this.#members((name) => {
      if (name !== "model") return this.#skipValue();
      this.#members((field) => {
        const start = this.#at;
        if (field === "vocab") {
          found.tokens = this.#vocab();
          cut(start, "{}");
        } else if (field === "merges") {
          found.merges = this.#list(() => this.#merge());
          cut(start, "[]");
        } else this.#skipValue();
      });
    });
    const { tokens, merges } = found;
    if (tokens === undefined || merges === undefined) throw new UnexpectedByte();
    rest.push(this.#decode(from, this.#bytes.length));
    const json = JSON.parse(rest.join("")) as { model: object };
    return { json: { ...json, model: { ...json.model, merges } }, tokens };
  }

  #vocab(): readonly string[] {
    const tokens: string[] = [];
    let count = 0;
    this.#members((token) => {
      const id = this.#integer();
      if (tokens[id] !== undefined || id > this.#bytes.length) throw new UnexpectedByte();
      tokens[id] = token;
      count++;
    });
    if (count !== tokens.length) throw new UnexpectedByte();
    return tokens;
  }

  #merge(): unknown {
    return this.#bytes[this.#at] === QUOTE ? this.#string() : this.#list(() => this.#string());
  }

  /** Calls `read` at the value of each member of the object here. */
  #members(read: (name: string) => void): void {
    this.#expect(OPEN_OBJECT);
    for (let isFirst = true; this.#goesOn(END_OBJECT, isFirst); isFirst = false) {
      const name = this.#string();
      this.#next();
      this.#expect(COLON);
      this.#next();
      read(name);
    }
  }

  #list<T>(read: () => T): T[] {
    this.#expect(OPEN_LIST);
    const items: T[] = [];
    for (let isFirst = true; this.#goesOn(END_LIST, isFirst); isFirst = false) items.push(read());
    return items;
  }

  /** Moves to the next item, or behind the end. */
  #goesOn(end: number, isFirst: boolean): boolean {
    if (this.#next() === end) {
      this.#at++;
      return false;
    }
    if (!isFirst) this.#expect(COMMA);
    this.#next();
    return true;
  }

  #skipValue(): void {
    let depth = 0;
    do {
      const byte = this.#next();
      if (byte === QUOTE) this.#skipString();
      else {
        if (byte === OPEN_OBJECT || byte === OPEN_LIST) depth++;
        if (byte === END_OBJECT || byte === END_LIST) depth--;
        this.#at++;
      }
      const next = this.#next();
      const isEnd = next === COMMA || next === END_OBJECT || next === END_LIST;
      if (depth === 0 && isEnd) return;
    } while (this.#at < this.#bytes.length);
    throw new UnexpectedByte();
  }

  /** Moves behind the string here; whether it has escapes. */
  #skipString(): boolean {
    this.#expect(QUOTE);
    let isEscaped = false;
    for (let byte = this.#bytes[this.#at]; byte !== QUOTE; byte = this.#bytes[++this.#at]) {
      if (byte === undefined || byte < SPACE) throw new UnexpectedByte();
      if (byte !== BACKSLASH) continue;
      isEscaped = true;
      this.#at++;
    }
    this.#at++;
    return isEscaped;
  }

  #string(): string {
    const start = this.#at;
    const isEscaped = this.#skipString();
    if (isEscaped) return JSON.parse(this.#decode(start, this.#at)) as string;
    return this.#decode(start + 1, this.#at - 1);
  }

  #integer(): number {
    const start = this.#at;
    let value = 0;
    for (let byte = this.#bytes[start]!; byte >= ZERO && byte <= NINE; byte = this.#bytes[++this.#at]!) {
      value = value * 10 + byte - ZERO;
    }
    const digits = this.#at - start;
    if (digits === 0 || (digits > 1 && this.#bytes[start] === ZERO)) throw new UnexpectedByte();
    return value;
  }

  /** The next byte that is not whitespace; the cursor stands on it. */
  #next(): number | undefined {
    let byte = this.#bytes[this.#at];
    while (byte === SPACE || byte === LINE_FEED || byte === RETURN || byte === TAB) byte = this.#bytes[++this.#at];
    return byte;
  }

  #expect(byte: number): void {
    this.#next();
    if (this.#bytes[this.#at] !== byte) throw new UnexpectedByte();
    this.#at++;
  }

  #decode(start: number, end: number): string {
    return this.#bytes.toString("utf8", start, end);
  }
}
