import * as fc from "fast-check";
import { expect, test } from "vitest";
import { ConfigError } from "../core/errors.ts";
import { type Batch, evaluationBatches, type TokenStream, TrainBatches, type TrainBatchOptions } from "./batches.ts";

const BOS = 0;
const EOS = 1;
/** Ids 2 … 99 spell as many bytes as their last digit says. */
const TOKEN_BYTES = Array.from({ length: 100 }, (_, id) => (id < 2 ? 0 : id % 10));

/** Documents in memory as a stream; `owner` tells the document of every position. */
function streamOf(documents: readonly (readonly number[])[]): TokenStream & { all: number[]; owner: number[] } {
  const parts = documents.map((ids) => [BOS, ...ids, EOS]);
  const all = parts.flat();
  const owner = parts.flatMap((part, number) => part.map(() => number));
  const starts = all.flatMap((_, at) => (owner[at] === owner[at - 1] ? [] : [at]));
  return {
    all,
    owner,
    length: all.length,
    read: (start, count) => {
      expect(start >= 0 && start + count <= all.length).toBe(true);
      return Int32Array.from(all.slice(start, start + count));
    },
    documentStarts: (from, to) => starts.filter((at) => at >= from && at < to),
  };
}

/** A stream whose tokens are all different, so that a row's token tells its position. */
function countingStream(lengths: readonly number[]): ReturnType<typeof streamOf> {
  let next = 2;
  return streamOf(lengths.map((length) => Array.from({ length }, () => next++)));
}

function options(over: Partial<TrainBatchOptions> = {}): TrainBatchOptions {
  return { seqLen: 4, batchSize: 2, mtpDepth: 0, seed: 1, tokenBytes: TOKEN_BYTES, ...over };
}

const lengths = fc.array(fc.nat({ max: 12 }), { minLength: 1, maxLength: 12 });
const sizes = fc.record({
  seqLen: fc.integer({ min: 1, max: 9 }),
  batchSize: fc.integer({ min: 1, max: 4 }),
  mtpDepth: fc.nat({ max: 3 }),
  seed: fc.nat(),
});

test("a batch in full: two documents in one window", () => {
  const stream = streamOf([[10, 11], [12], [13, 14, 15]]);
  const batch = new TrainBatches(stream, options({ seqLen: 8, batchSize: 1, mtpDepth: 1 })).next();
  expect(batch).toEqual({
    tokens: Int32Array.of(BOS, 10, 11, EOS, BOS, 12, EOS, BOS),
    targets: Int32Array.of(10, 11, EOS, -1, 12, EOS, -1, 13),
    mtpTokens: [Int32Array.of(10, 11, EOS, BOS, 12, EOS, BOS, 13)],
    mtpTargets: [Int32Array.of(11, EOS, -1, -1, EOS, -1, -1, 14)],
    positions: Int32Array.of(0, 1, 2, 3, 0, 1, 2, 0),
    seqStarts: Int32Array.of(0, 4, 7, 8),
    targetCount: 6,
    bytes: 0 + 1 + 0 + 2 + 0 + 3,
  });
});

test("targets, look-ahead and positions follow from the stream, and no target lies in another document", () => {
  fc.assert(
    fc.property(lengths, sizes, (documentLengths, size) => {
      const stream = countingStream(documentLengths);
      fc.pre(stream.length > size.seqLen + size.mtpDepth);
      const batches = new TrainBatches(stream, options({ ...size, tokenBytes: new Uint8Array(1000) }));
      for (let n = 0; n < 4; n++) {
        const batch = batches.next();
        const starts = windowStarts(batch, size.seqLen, size.batchSize, stream);
        for (const [b, start] of starts.entries()) checkWindow(batch, b * size.seqLen, start, stream, size.seqLen);
        expect(batch.seqStarts.at(-1)).toBe(size.batchSize * size.seqLen);
      }
    }),
  );
});

/** The stream positions of a batch's windows: known from any token that is not special, else from the window's look. */
function windowStarts(batch: Batch, T: number, B: number, stream: ReturnType<typeof streamOf>): number[] {
  return Array.from({ length: B }, (_, b) => {
    const window = batch.tokens.slice(b * T, (b + 1) * T).join();
    for (let start = 0; start + T < stream.length; start += T) {
      if (stream.all.slice(start, start + T).join() === window) return start;
    }
    throw new Error("the batch holds a window that does not stand in the stream");
  });
}

function checkWindow(batch: Batch, row0: number, start: number, stream: ReturnType<typeof streamOf>, T: number): void {
  const { all, owner } = stream;
  const sameDocument = (from: number, to: number): boolean => owner[from] === owner[to];
  const twin = all.slice(start, start + T).every((token) => token < 2);
  for (let i = 0; i < T; i++) {
    const [row, at] = [row0 + i, start + i];
    expect(batch.tokens[row]).toBe(all[at]);
    const begins = i === 0 || !sameDocument(at, at - 1);
    expect(batch.positions[row]).toBe(begins ? 0 : batch.positions[row - 1]! + 1);
    expect(batch.seqStarts.includes(row)).toBe(begins);
    // A window of special tokens alone may stand in the stream twice, with other tokens after it.
    if (twin) continue;
    expect(batch.targets[row]).toBe(sameDocument(at, at + 1) ? all[at + 1] : -1);
    for (const [index, tokens] of batch.mtpTokens.entries()) {
      const k = index + 1;
      expect(tokens[row]).toBe(all[at + k]);
      expect(batch.mtpTargets[index]![row]).toBe(sameDocument(at, at + 1 + k) ? all[at + 1 + k] : -1);
    }
  }
}

test("an epoch takes every full window once, and the next epoch in another order", () => {
  const stream = countingStream([200]);
  const batches = new TrainBatches(stream, options({ batchSize: 5, tokenBytes: new Uint8Array(300) }));
  expect(batches.windows).toBe(50);
  const epoch = (): number[] => Array.from({ length: 10 }, () => [...batches.next().tokens]).flat();
  const [first, second] = [epoch(), epoch()];
  expect(batches.position).toEqual({ epoch: 2, index: 0 });
  expect(first.toSorted((a, b) => a - b)).toEqual(stream.all.slice(0, 200).toSorted((a, b) => a - b));
  expect(second.toSorted((a, b) => a - b)).toEqual(first.toSorted((a, b) => a - b));
  expect(second).not.toEqual(first);
});

test("a run resumed at any position goes on as the straight run", () => {
  fc.assert(
    fc.property(lengths, sizes, fc.nat({ max: 20 }), (documentLengths, size, done) => {
      const stream = countingStream(documentLengths);
      fc.pre(stream.length > size.seqLen + size.mtpDepth);
      const all = options({ ...size, tokenBytes: new Uint8Array(1000) });
      const straight = new TrainBatches(stream, all);
      for (let n = 0; n < done; n++) straight.next();
      const position = JSON.parse(JSON.stringify(straight.position)) as { epoch: number; index: number };
      const resumed = new TrainBatches(stream, { ...all, position });
      for (let n = 0; n < 3; n++) expect(resumed.next()).toEqual(straight.next());
    }),
  );
});

test("evaluation scores every token but the BOS of each document exactly once, and counts all bytes", () => {
  fc.assert(
    fc.property(
      lengths,
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 4 }),
      (documents, seqLen, batchSize) => {
        const stream = streamOf(documents.map((length, n) => Array.from({ length }, (_, i) => 2 + ((7 * n + i) % 98))));
        const batches = [...evaluationBatches(stream, { seqLen, batchSize, tokenBytes: TOKEN_BYTES })];
        expect(batches.flatMap((batch) => [...batch.tokens])).toEqual(stream.all.slice(0, -1));
        const scored = batches.flatMap((batch) => [...batch.targets].filter((target) => target >= 0));
        expect(scored).toEqual(stream.all.filter((token) => token !== BOS));
        const sum = (key: "bytes" | "targetCount"): number => batches.reduce((total, batch) => total + batch[key], 0);
        expect(sum("targetCount")).toBe(scored.length);
        expect(sum("bytes")).toBe(stream.all.reduce((total, token) => total + TOKEN_BYTES[token]!, 0));
        for (const { seqStarts, tokens } of batches) expect(seqStarts.at(-1)).toBe(tokens.length);
      },
    ),
  );
});

test("windows longer than the text are refused with both numbers and the cure", () => {
  const stream = countingStream([5]);
  expect(() => new TrainBatches(stream, options({ seqLen: 6 }))).not.toThrow();
  expect(() => new TrainBatches(stream, options({ seqLen: 6, mtpDepth: 1 }))).toThrow(ConfigError);
  expect(() => new TrainBatches(stream, options({ seqLen: 7 }))).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: seq_len: must be at most 6, since the training text has 7 tokens, got 7; lower seq_len or give more text]`,
  );
});

test("a position outside the epoch is refused", () => {
  const stream = countingStream([50]);
  const at = (epoch: number, index: number) => () => new TrainBatches(stream, options({ position: { epoch, index } }));
  expect(at(3, 11)).not.toThrow();
  expect(at(0, 12)).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: position: must have an epoch from 0 and an index below 12, got {"epoch":0,"index":12}]`,
  );
  expect(at(-1, 0)).toThrow(ConfigError);
});
