/**
 * Training and evaluation batches cut from a token stream.
 *
 * A stream is documents joined; each is `bos, its tokens, eos`. BOS stands first so that generation can start from it,
 * EOS is predicted as the document's last token. Windows start at every multiple of T in the stream and hold
 * T + 1 + D tokens: T inputs, their targets, and what the D multi-token-prediction depths look ahead. So every token of
 * the stream but its first is the target of one window.
 *
 * Shapes: N flat rows (B · T), B windows, T tokens in a window, D prediction depths.
 */

import { ConfigError, invariant } from "../core/errors.ts";
import { createPermutation } from "./permutation.ts";

/** The tokens of one split, read by position. */
export interface TokenStream {
  /** Tokens in all. */
  readonly length: number;
  /** Tokens `start … start + count - 1`; the range lies inside the stream. */
  read(start: number, count: number): Int32Array;
  /** Positions in [from, to) at which a document starts, ascending. */
  documentStarts(from: number, to: number): number[];
}

export interface Batch {
  /** `[N]` i32: the input tokens, window after window. */
  readonly tokens: Int32Array;
  /** `[N]` i32: the token after each input, or -1 where the input ends its document and nothing is predicted. */
  readonly targets: Int32Array;
  /** For depth k = 1 … D at index k - 1, `[N]` i32: the token k places after each input. */
  readonly mtpTokens: readonly Int32Array[];
  /** For depth k = 1 … D at index k - 1, `[N]` i32: the token k + 1 places after, or -1 where it is in another document. */
  readonly mtpTargets: readonly Int32Array[];
  /** `[N]` i32: 0 at each start of a window or document, counting up from there: attention sees nothing before it. */
  readonly positions: Int32Array;
  /** i32: the rows at which a window or a document starts, then N. */
  readonly seqStarts: Int32Array;
  /** Targets that are not -1. */
  readonly targetCount: number;
  /** UTF-8 bytes of the targets. EOS has none, though its loss counts. */
  readonly bytes: number;
}

/** Where in the data the next batch starts: windows 0 … index - 1 of the epoch's order are used. */
export interface DataPosition {
  readonly epoch: number;
  readonly index: number;
}

export interface BatchShape {
  /** T, tokens in a window. */
  readonly seqLen: number;
  /** B, windows in a batch. */
  readonly batchSize: number;
  /** UTF-8 bytes of every token by its id; 0 for special tokens. */
  readonly tokenBytes: ArrayLike<number>;
}

export interface TrainBatchOptions extends BatchShape {
  /** D, extra tokens predicted by MTP modules; 0 without any. */
  readonly mtpDepth: number;
  readonly seed: number;
  readonly position?: DataPosition;
}

/**
 * An endless sequence of batches of the same shape. Each epoch takes every full window once, in an order keyed by seed
 * and epoch; a batch may span two epochs. The tail that fills no window is left out.
 */
export class TrainBatches {
  /** Windows in an epoch. */
  readonly windows: number;
  readonly #stream: TokenStream;
  readonly #options: TrainBatchOptions;
  #epoch: number;
  #index: number;
  #order: (index: number) => number;

  /** @throws ConfigError when not even one window fits into the stream, or the position is not one of its. */
  constructor(stream: TokenStream, options: TrainBatchOptions) {
    const { seqLen, mtpDepth, seed, position = { epoch: 0, index: 0 } } = options;
    this.windows = Math.floor((stream.length - 1 - mtpDepth) / seqLen);
    if (this.windows < 1) {
      const longest = Math.max(0, stream.length - 1 - mtpDepth);
      const rule = `must be at most ${longest}, since the training text has ${stream.length} tokens`;
      throw new ConfigError("seq_len", rule, seqLen, "lower seq_len or give more text");
    }
    if (!isPosition(position, this.windows)) {
      throw new ConfigError("position", `must have an epoch from 0 and an index below ${this.windows}`, position);
    }
    this.#stream = stream;
    this.#options = options;
    this.#epoch = position.epoch;
    this.#index = position.index;
    this.#order = createPermutation(this.windows, seed, this.#epoch);
  }

  /** Handed to a new TrainBatches as `position`, it goes on with the batch that `next` would return now. */
  get position(): DataPosition {
    return { epoch: this.#epoch, index: this.#index };
  }

  next(): Batch {
    const { seqLen, batchSize, mtpDepth, tokenBytes } = this.#options;
    const rows = new BatchRows(batchSize * seqLen, mtpDepth);
    for (let b = 0; b < batchSize; b++) rows.add(this.#stream, this.#nextWindow() * seqLen, seqLen);
    return rows.finish(tokenBytes);
  }

  #nextWindow(): number {
    const window = this.#order(this.#index++);
    if (this.#index === this.windows) {
      this.#index = 0;
      this.#epoch++;
      this.#order = createPermutation(this.windows, this.#options.seed, this.#epoch);
    }
    return window;
  }
}

function isPosition({ epoch, index }: DataPosition, windows: number): boolean {
  return Number.isSafeInteger(epoch) && epoch >= 0 && Number.isSafeInteger(index) && index >= 0 && index < windows;
}

/**
 * Batches that score every token of the stream once, in order, without MTP. The last window and the last batch may be
 * shorter.
 *
 * Bits per byte = Σ loss in nats / ln 2 / Σ `bytes`, both sums over the batches.
 */
export function* evaluationBatches(
  stream: TokenStream,
  { seqLen, batchSize, tokenBytes }: BatchShape,
): Generator<Batch> {
  // The stream's last token is an EOS: it is a target, but no input.
  const inputs = stream.length - 1;
  const windows = Math.ceil(inputs / seqLen);
  for (let first = 0; first < windows; first += batchSize) {
    const numbers = Array.from({ length: Math.min(batchSize, windows - first) }, (_, b) => first + b);
    const lengths = numbers.map((window) => Math.min(seqLen, inputs - window * seqLen));
    const rows = new BatchRows(
      lengths.reduce((sum, length) => sum + length, 0),
      0,
    );
    for (const [b, window] of numbers.entries()) rows.add(stream, window * seqLen, lengths[b]!);
    yield rows.finish(tokenBytes);
  }
}

/** A batch while it is filled, window by window. */
class BatchRows {
  readonly #tokens: Int32Array;
  readonly #targets: Int32Array;
  readonly #mtpTokens: Int32Array[];
  readonly #mtpTargets: Int32Array[];
  readonly #positions: Int32Array;
  readonly #seqStarts: number[] = [];
  #filled = 0;

  constructor(rows: number, mtpDepth: number) {
    this.#tokens = new Int32Array(rows);
    this.#targets = new Int32Array(rows);
    this.#positions = new Int32Array(rows);
    this.#mtpTokens = Array.from({ length: mtpDepth }, () => new Int32Array(rows));
    this.#mtpTargets = Array.from({ length: mtpDepth }, () => new Int32Array(rows));
  }

  /** Appends the window of `length` inputs that starts at stream position `start`. */
  add(stream: TokenStream, start: number, length: number): void {
    const depth = this.#mtpTokens.length;
    const window = stream.read(start, length + 1 + depth);
    const starts = stream.documentStarts(start + 1, start + window.length).map((at) => at - start);
    let sequenceStart = 0;
    // Documents that start in the look-ahead end a sequence but begin none.
    for (const sequenceEnd of [...starts, window.length]) {
      this.#addSequence(window, sequenceStart, sequenceEnd, length);
      sequenceStart = sequenceEnd;
    }
    this.#filled += length;
  }

  /** Rows for the inputs of one document's part of a window: tokens [from, to), of which those below `length` are inputs. */
  #addSequence(window: Int32Array, from: number, to: number, length: number): void {
    if (from >= length) return;
    this.#seqStarts.push(this.#filled + from);
    for (let i = from; i < Math.min(to, length); i++) {
      const row = this.#filled + i;
      this.#tokens[row] = window[i]!;
      this.#targets[row] = i + 1 < to ? window[i + 1]! : -1;
      this.#positions[row] = i - from;
      for (let k = 1; k <= this.#mtpTokens.length; k++) {
        this.#mtpTokens[k - 1]![row] = window[i + k]!;
        this.#mtpTargets[k - 1]![row] = i + 1 + k < to ? window[i + 1 + k]! : -1;
      }
    }
  }

  finish(tokenBytes: ArrayLike<number>): Batch {
    invariant(this.#filled === this.#tokens.length, "every row of a batch is filled");
    let targetCount = 0;
    let bytes = 0;
    for (const target of this.#targets) {
      if (target < 0) continue;
      targetCount++;
      bytes += tokenBytes[target]!;
    }
    return {
      tokens: this.#tokens,
      targets: this.#targets,
      mtpTokens: this.#mtpTokens,
      mtpTargets: this.#mtpTargets,
      positions: this.#positions,
      seqStarts: Int32Array.from([...this.#seqStarts, this.#filled]),
      targetCount,
      bytes,
    };
  }
}
