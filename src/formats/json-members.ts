/**
 * Walks over the members of a JSON object without building it. `JSON.parse` hides a repeated name and where a fault
 * stands, and holds a hundred thousand entries twice.
 */

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_LIST = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_LIST = 0x5d;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const SPACE = 0x20;

/** The longest name of a released tensor has 80 characters; what is longer would fill messages and memory. */
const MAX_NAME = 2 ** 12;

/** What is wrong with a text, and at which character. */
export class JsonFault extends Error {
  readonly at: number;
  constructor(what: string, at: number) {
    super(what);
    this.at = at;
  }
}

/**
 * The members of one object in order. Whether a name stands twice is for the reader to see, who keeps them.
 *
 * @example
 * const members = new JsonMembers(text, 0);
 * for (let key = members.next(); key !== undefined; key = members.next()) use(key, members.value(100));
 */
export class JsonMembers {
  readonly #text: string;
  /** The next character to read; behind the object at its end. */
  #at: number;
  #isFirst = true;
  /** Whether the value of the last name is still to be passed over. */
  #isOpen = false;

  /** @throws JsonFault when no object opens at `start`. */
  constructor(text: string, start: number) {
    this.#text = text;
    this.#at = skipSpace(text, expect(text, start, OPEN));
  }

  /** The next name, or undefined behind the last. @throws JsonFault for what is not JSON. */
  next(): string | undefined {
    const text = this.#text;
    if (this.#isOpen) this.passTo(endOfValue(text, this.#at));
    this.#at = skipSpace(text, this.#at);
    if (text.charCodeAt(this.#at) === CLOSE) {
      this.#at++;
      return undefined;
    }
    if (!this.#isFirst) this.#at = skipSpace(text, expect(text, this.#at, COMMA));
    this.#isFirst = false;
    const keyEnd = stringEnd(text, this.#at);
    if (keyEnd - this.#at > MAX_NAME)
      throw new JsonFault(`must have names of at most ${MAX_NAME} characters`, this.#at);
    const key = readString(text, this.#at, keyEnd);
    this.#at = skipSpace(text, expect(text, skipSpace(text, keyEnd), COLON));
    this.#isOpen = true;
    return key;
  }

  /** Where the value of the last name begins, and behind the last name where the object ends. */
  at(): number {
    return this.#at;
  }

  /** The last name's value, parsed. @throws JsonFault when it has more than `most` characters, or is not JSON. */
  value(most: number): unknown {
    const end = endOfValue(this.#text, this.#at);
    if (end - this.#at > most) throw new JsonFault(`must have at most ${most} characters here`, this.#at);
    return jsonValue(this.#text, this.#at, end);
  }

  /** The last name's value as it is written. */
  written(): string {
    return this.#text.slice(this.#at, endOfValue(this.#text, this.#at));
  }

  /** Says where the value of the last name ends, which the reader has found itself. */
  passTo(end: number): void {
    this.#at = end;
    this.#isOpen = false;
  }
}

/** The value between two places. @throws JsonFault when it is not JSON. */
function jsonValue(text: string, start: number, end: number): unknown {
  try {
    return JSON.parse(text.slice(start, end));
  } catch {
    throw new JsonFault("must be JSON", start);
  }
}

/** The place of the next character that is not white space. */
export function skipSpace(text: string, start: number): number {
  let at = start;
  for (let code = text.charCodeAt(at); code === SPACE || (code >= 9 && code <= 13 && code !== 11 && code !== 12);) {
    code = text.charCodeAt(++at);
  }
  return at;
}

function expect(text: string, at: number, code: number): number {
  if (text.charCodeAt(at) === code) return at + 1;
  throw new JsonFault(`must be JSON with ${String.fromCharCode(code)} here`, at);
}

/** Just behind the closing quote of the string that opens at `start`. */
function stringEnd(text: string, start: number): number {
  expect(text, start, QUOTE);
  let at = text.indexOf('"', start + 1);
  while (at > 0 && isEscaped(text, at)) at = text.indexOf('"', at + 1);
  if (at < 0) throw new JsonFault("must be JSON with its strings closed", start);
  return at + 1;
}

/** Whether an odd number of backslashes stands before a place. */
function isEscaped(text: string, at: number): boolean {
  let first = at;
  while (text.charCodeAt(first - 1) === BACKSLASH) first--;
  return (at - first) % 2 === 1;
}

/** The text of a string; without escapes it is a slice. */
function readString(text: string, start: number, end: number): string {
  const inner = text.slice(start + 1, end - 1);
  // oxlint-disable-next-line no-control-regex -- JSON forbids control characters in strings
  if (!/[\u0000-\u001F\\]/.test(inner)) return inner;
  return jsonValue(text, start, end) as string;
}

function endOfValue(text: string, start: number): number {
  const first = text.charCodeAt(start);
  if (first === QUOTE) return stringEnd(text, start);
  return first === OPEN || first === OPEN_LIST ? endOfNested(text, start) : endOfPlain(text, start);
}

/** Brackets are counted, whichever they are: who reads the value checks it. */
function endOfNested(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === OPEN || code === OPEN_LIST) depth++;
    else if (code === QUOTE) at = stringEnd(text, at) - 1;
    else if ((code === CLOSE || code === CLOSE_LIST) && --depth === 0) return at + 1;
  }
  throw new JsonFault("must be JSON with its brackets closed", start);
}

/** A number, true, false or null. */
function endOfPlain(text: string, start: number): number {
  let at = start;
  for (let code = text.charCodeAt(at); code > SPACE && code !== COMMA && code !== CLOSE && code !== CLOSE_LIST;) {
    code = text.charCodeAt(++at);
  }
  if (at === start) throw new JsonFault("must be JSON with a value here", start);
  return at;
}
