/**
 * The closed family of errors. Every message reads `place: rule, got value; cure`, and every class carries a stable
 * `code` and typed fields, so that each front end can show it in its own way.
 */

export abstract class FathomError extends Error {
  abstract readonly code: string;
}

/** `place: rule, got value; cure` */
function sentence(place: string, rule: string, got?: unknown, cure?: string): string {
  const value = got === undefined ? "" : `, got ${show(got)}`;
  return `${place}: ${rule}${value}${cure === undefined ? "" : `; ${cure}`}`;
}

function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(show).join(", ")}]`;
  if (typeof value === "object" && value !== null) return JSON.stringify(value);
  return String(value);
}

/** A setting is wrong, or settings conflict. */
export class ConfigError extends FathomError {
  readonly code = "config";
  override readonly name = "ConfigError";
  readonly param: string;
  readonly value: unknown;
  readonly rule: string;
  readonly hint: string | undefined;
  constructor(param: string, rule: string, value?: unknown, hint?: string) {
    super(sentence(param, rule, value, hint));
    this.param = param;
    this.value = value;
    this.rule = rule;
    this.hint = hint;
  }
}

/** Operands do not fit each other. */
export class ShapeError extends FathomError {
  readonly code = "shape";
  override readonly name = "ShapeError";
  readonly op: string;
  readonly expected: string;
  readonly got: unknown;
  constructor(op: string, expected: string, got: unknown) {
    super(sentence(op, expected, got));
    this.op = op;
    this.expected = expected;
    this.got = got;
  }
}

export class DtypeError extends FathomError {
  readonly code = "dtype";
  override readonly name = "DtypeError";
  readonly op: string;
  readonly expected: string;
  readonly got: string;
  constructor(op: string, expected: string, got: string) {
    super(sentence(op, expected, got));
    this.op = op;
    this.expected = expected;
    this.got = got;
  }
}

/** What is asked for exists, but not on this machine or not in this version. */
export class UnsupportedError extends FathomError {
  readonly code = "unsupported";
  override readonly name = "UnsupportedError";
  readonly op: string;
  readonly available: readonly string[];
  constructor(op: string, rule: string, got: unknown, available: readonly string[], cure?: string) {
    const list = available.length === 0 ? "" : `available: ${available.join(", ")}`;
    super(sentence(op, rule, got, [list, cure].filter(Boolean).join("; ") || undefined));
    this.op = op;
    this.available = available;
  }
}

/** A file or stream is malformed, or over a limit. `offset` is in bytes (or a line number where `what` says so). */
export class FormatError extends FathomError {
  readonly code = "format";
  override readonly name = "FormatError";
  readonly file: string;
  readonly offset: number | undefined;
  readonly what: string;
  constructor(file: string, what: string, options: { offset?: number; got?: unknown; cure?: string } = {}) {
    const place = options.offset === undefined ? file : `${file} at byte ${options.offset}`;
    super(sentence(place, what, options.got, options.cure));
    this.file = file;
    this.offset = options.offset;
    this.what = what;
  }
}

/** A plan or an allocation does not fit. */
export class MemoryError extends FathomError {
  readonly code = "memory";
  override readonly name = "MemoryError";
  readonly neededBytes: number;
  readonly availableBytes: number | undefined;
  constructor(place: string, neededBytes: number, availableBytes: number | undefined, hint: string) {
    const room = availableBytes === undefined ? "" : ` of ${byteText(availableBytes)} available`;
    super(sentence(place, `needs ${byteText(neededBytes)}${room}`, undefined, hint));
    this.neededBytes = neededBytes;
    this.availableBytes = availableBytes;
  }
}

/** `8593344 bytes (8.2 MiB)` */
export function byteText(bytes: number): string {
  const [unit, size] = bytes >= 2 ** 30 ? ["GiB", 2 ** 30] : ["MiB", 2 ** 20];
  return `${bytes} bytes (${(bytes / size).toFixed(1)} ${unit})`;
}

/** Disk, network or hash. */
export class IoError extends FathomError {
  readonly code = "io";
  override readonly name = "IoError";
  readonly path: string;
  constructor(path: string, rule: string, options: { got?: unknown; cure?: string; cause?: unknown } = {}) {
    super(sentence(path, rule, options.got, options.cure), { cause: options.cause });
    this.path = path;
  }
}

/** NaN or infinity where none may be. */
export class NumericError extends FathomError {
  readonly code = "numeric";
  override readonly name = "NumericError";
  readonly where: string;
  readonly step: number | undefined;
  constructor(where: string, rule: string, got: unknown, cure: string, step?: number) {
    super(sentence(where, rule, got, cure));
    this.where = where;
    this.step = step;
  }
}

/** Use after free. */
export class DisposedError extends FathomError {
  readonly code = "disposed";
  override readonly name = "DisposedError";
  readonly what: string;
  constructor(what: string) {
    super(`${what}: must be live when it is used, got a disposed one; keep it in the scope that outlives its last use`);
    this.what = what;
  }
}

/** Our own broken invariant: a bug in Fathom, never the user's fault. */
export class InternalError extends FathomError {
  readonly code = "internal";
  override readonly name = "InternalError";
}

/** States what must hold inside a room. @throws InternalError when it does not. */
export function invariant(condition: unknown, text: string): asserts condition {
  if (!condition) throw new InternalError(`invariant: ${text}; this is a bug in Fathom`);
}

/** The known name closest to `name` by edit distance, when it is close enough to be a likely misspelling. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitute, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
