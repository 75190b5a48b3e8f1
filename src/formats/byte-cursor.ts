/** Reads little-endian values of a file in order, through a window; a claimed length is checked before it is read. */

import { FormatError } from "../core/errors.ts";
import type { ReadableFile } from "./file-port.ts";

/** One read of a header; larger values than this are read alone. */
const WINDOW_BYTES = 2 ** 20;
/** A length of text in a file. */
const LENGTH_BYTES = 8;

export class ByteCursor {
  readonly #file: ReadableFile;
  #window: DataView = new DataView(new ArrayBuffer(0));
  /** Where the window begins in the file. */
  #start = 0;
  /** The next byte, counted within the window. */
  #at = 0;

  /** Where what is read must end. */
  readonly #end: number;

  /** @param most - bytes of the file that may be read. */
  constructor(file: ReadableFile, most: number = file.bytes) {
    this.#file = file;
    this.#end = Math.min(file.bytes, most);
  }

  /** Where the next value stands in the file. */
  offset(): number {
    return this.#start + this.#at;
  }

  /** Bytes from here to the end. */
  left(): number {
    return this.#end - this.offset();
  }

  /** A fault at the next byte, or where `offset` says. */
  fault(what: string, options: { got?: unknown; cure?: string; offset?: number } = {}): FormatError {
    return new FormatError(this.#file.path, what, { offset: this.offset(), ...options });
  }

  /** Brings the next bytes into the window. @throws FormatError when the file ends before. */
  async need(bytes: number): Promise<void> {
    if (this.#window.byteLength - this.#at >= bytes) return;
    this.checkLeft(bytes);
    this.#start = this.offset();
    this.#at = 0;
    const read = await this.#file.read(this.#start, Math.min(Math.max(bytes, WINDOW_BYTES), this.left()));
    this.#window = new DataView(read.buffer, read.byteOffset, read.byteLength);
    if (read.byteLength < bytes) throw this.#cutOff(bytes);
  }

  /** @throws FormatError when the file ends before `bytes` more. */
  checkLeft(bytes: number): void {
    if (bytes > this.left()) throw this.#cutOff(bytes);
  }

  #cutOff(bytes: number): FormatError {
    if (this.#end < this.#file.bytes) return this.fault(`must have a header of at most ${this.#end} bytes`);
    return this.fault(`must have ${bytes} bytes more here`, {
      got: this.left(),
      cure: "the file is cut off or damaged; copy or download it again",
    });
  }

  /** The bytes that the last `need` asked for, as a view and the place of the first one; they count as read. */
  take(bytes: number): { readonly view: DataView; readonly at: number } {
    const at = this.#at;
    this.#at += bytes;
    return { view: this.#window, at };
  }

  async u32(): Promise<number> {
    await this.need(4);
    const { view, at } = this.take(4);
    return view.getUint32(at, true);
  }

  async u64(): Promise<bigint> {
    await this.need(8);
    const { view, at } = this.take(8);
    return view.getBigUint64(at, true);
  }

  /** A 64-bit count. @throws FormatError when it is over `most`; `rule` says what it counts and why it ends there. */
  async count(most: number, rule: string): Promise<number> {
    const start = this.offset();
    const value = await this.u64();
    if (value > BigInt(most)) throw this.fault(rule, { offset: start, got: value });
    return Number(value);
  }

  /** A text behind its 64-bit length. @throws FormatError when it is over `most` bytes or not UTF-8. */
  async text(most: number, what: string): Promise<string> {
    const length = await this.count(most, `must have ${what} of at most ${most} bytes`);
    await this.need(length);
    return this.#decode(length, what);
  }

  /** `count` texts. Those that lie in the window with their length are read without waiting. */
  async texts(count: number, most: number, what: string): Promise<string[]> {
    const texts: string[] = [];
    while (texts.length < count) {
      const length = this.#wholeText();
      if (length === undefined || length > most) {
        texts.push(await this.text(most, what));
        continue;
      }
      this.#at += LENGTH_BYTES;
      texts.push(this.#decode(length, what));
    }
    return texts;
  }

  /** The length of the next text, if all of it is in the window. */
  #wholeText(): number | undefined {
    const inside = this.#window.byteLength - this.#at - LENGTH_BYTES;
    if (inside < 0) return undefined;
    const length = this.#window.getUint32(this.#at, true);
    return length <= inside && this.#window.getUint32(this.#at + 4, true) === 0 ? length : undefined;
  }

  /** The next bytes of the window as a text. */
  #decode(length: number, what: string): string {
    const start = this.offset();
    const { view, at } = this.take(length);
    try {
      return UTF8.decode(new Uint8Array(view.buffer, view.byteOffset + at, length));
    } catch {
      throw this.fault(`must have ${what} in UTF-8`, { offset: start });
    }
  }

  /** Passes over bytes without reading them. */
  skip(bytes: number): void {
    this.checkLeft(bytes);
    this.#at += bytes;
    if (this.#at <= this.#window.byteLength) return;
    this.#start += this.#at;
    this.#at = 0;
    this.#window = new DataView(new ArrayBuffer(0));
  }

  /** Passes over `count` texts. */
  async skipTexts(count: number): Promise<void> {
    for (let left = count; left > 0; left--) {
      if (this.#window.byteLength - this.#at < LENGTH_BYTES) await this.need(LENGTH_BYTES);
      const low = this.#window.getUint32(this.#at, true);
      const high = this.#window.getUint32(this.#at + 4, true);
      this.#at += LENGTH_BYTES;
      this.skip(high * 2 ** 32 + low);
    }
  }
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
