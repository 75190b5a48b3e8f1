/** What commands print: results on stdout, progress and notices on stderr, JSON when asked. */

import { toSnakeCase } from "../config/index.ts";

const MIN_REDRAW_MS = 100;
const PLAIN_EVERY_MS = 5000;

/** A live line on a terminal; on anything else a plain line every few seconds. */
export class ProgressLine {
  readonly #stream: NodeJS.WriteStream;
  readonly #now: () => number;
  #last = -Infinity;
  #drawn = false;

  constructor(stream: NodeJS.WriteStream, now: () => number) {
    this.#stream = stream;
    this.#now = now;
  }

  update(text: string): void {
    const now = this.#now();
    if (now - this.#last < (this.#stream.isTTY ? MIN_REDRAW_MS : PLAIN_EVERY_MS)) return;
    this.#last = now;
    if (!this.#stream.isTTY) {
      this.#stream.write(`${text}\n`);
      return;
    }
    const { columns } = this.#stream;
    // Some terminals do not tell their width, or tell 0.
    const width = Math.max(20, (columns > 0 ? columns : 80) - 1);
    this.#stream.write(`\r\u001B[2K${text.slice(0, width)}`);
    this.#drawn = true;
  }

  /** A lasting line; the live line goes on below it. */
  say(text: string): void {
    this.clear();
    this.#stream.write(`${text}\n`);
  }

  clear(): void {
    if (this.#drawn) this.#stream.write("\r\u001B[2K");
    this.#drawn = false;
  }
}

/** One JSON document on a line of stdout. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** An object for JSON: keys in snake_case all the way down, in lists too. */
export function snake(value: object): object {
  if (Array.isArray(value)) return value.map(snakeWithin);
  return Object.fromEntries(
    Object.entries(value).map(([key, child]: [string, unknown]) => [toSnakeCase(key), snakeWithin(child)]),
  );
}

function snakeWithin(value: unknown): unknown {
  return typeof value === "object" && value !== null ? snake(value) : value;
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** 83 → "1m 23s". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${String(whole % 60).padStart(2, "0")}s`;
  return `${Math.floor(whole / 3600)}h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")}m`;
}

/** 671026419200 → "671,026,419,200". */
export function digits(count: number): string {
  return String(count).replaceAll(/\B(?=(\d{3})+$)/g, ",");
}

/** 12345 → "12.3k". */
export function short(value: number): string {
  const units = ["", "k", "M", "G", "T"];
  let unit = 0;
  let scaled = value;
  while (Math.abs(scaled) >= 1000 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  return `${scaled >= 100 || unit === 0 ? Math.round(scaled) : scaled.toPrecision(3)}${units[unit]!}`;
}

/** `85.90 GB (80.00 GiB)`; below a GB in MB and MiB. */
export function size(value: number): string {
  if (Math.abs(value) < 1e9) return `${(value / 1e6).toFixed(1)} MB (${(value / 2 ** 20).toFixed(1)} MiB)`;
  return `${(value / 1e9).toFixed(2)} GB (${(value / 2 ** 30).toFixed(2)} GiB)`;
}

/** Bytes as MiB or GiB. */
export function bytes(value: number): string {
  return value >= 2 ** 30 ? `${(value / 2 ** 30).toFixed(2)} GiB` : `${(value / 2 ** 20).toFixed(1)} MiB`;
}
