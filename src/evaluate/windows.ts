/** Which tokens one call of the model reads, and which of them are scored. */

import { ConfigError, nearest } from "../core/errors.ts";

/**
 * `sliding`: windows of `context` tokens that start `stride` tokens apart. Every token but the first of a document is
 * scored once, with at least context − stride tokens before it where the document has so many.
 *
 * `llama.cpp`: chunks without overlap, the first token of each replaced by BOS; rows from context / 2 on are scored; what
 * fills no chunk is left out. **Source:** ggml-org/llama.cpp tools/perplexity/perplexity.cpp, perplexity().
 */
export type WindowRule =
  | { readonly kind: "sliding"; readonly context: number; readonly stride: number }
  | { readonly kind: "llama.cpp"; readonly context: number };

export interface Window {
  /** [N] ids that the model reads. */
  readonly tokens: Int32Array;
  /** Rows before this one are only read. */
  readonly from: number;
  /** [N − from] the ids that follow the scored rows. */
  readonly targets: Int32Array;
}

export interface WindowOptions {
  readonly context?: number;
  readonly stride?: number;
  /** The name of a program whose chunks are taken. */
  readonly chunks?: string;
}

/** A longer context costs time and memory, and says little more of a model. */
const DEFAULT_CONTEXT = 2048;
const LLAMA_CPP_CONTEXT = 512;
const LLAMA_CPP = "llama.cpp";
/** The shortest chunk whose second half holds a token to score. */
const MIN_CONTEXT = 4;

/** @throws ConfigError for a context that the model does not have, or a stride that would leave tokens out. */
export function resolveWindows({ context, stride, chunks }: WindowOptions, maxSeqLen: number): WindowRule {
  if (chunks !== undefined) {
    checkChunks(chunks, stride);
    return { kind: LLAMA_CPP, context: checkContext(context ?? LLAMA_CPP_CONTEXT, maxSeqLen) };
  }
  const length = checkContext(context ?? Math.min(DEFAULT_CONTEXT, maxSeqLen), maxSeqLen);
  const step = stride ?? Math.floor(length / 2);
  if (Number.isInteger(step) && step >= 1 && step <= length) return { kind: "sliding", context: length, stride: step };
  throw new ConfigError("--stride", `must be a whole number from 1 to the context of ${length}`, step);
}

function checkContext(context: number, maxSeqLen: number): number {
  if (Number.isInteger(context) && context >= MIN_CONTEXT && context <= maxSeqLen) return context;
  const rule = `must be a whole number from ${MIN_CONTEXT} to ${maxSeqLen}, the context of the model`;
  throw new ConfigError("--context", rule, context);
}

function checkChunks(chunks: string, stride: number | undefined): void {
  if (chunks !== LLAMA_CPP) {
    const known = nearest(chunks, [LLAMA_CPP]);
    throw new ConfigError("--chunks", `must be ${LLAMA_CPP}`, chunks, known && `did you mean ${known}?`);
  }
  if (stride === undefined) return;
  throw new ConfigError("--stride", `must not stand with --chunks ${LLAMA_CPP}, whose chunks do not overlap`, stride);
}

/** The share of a long text's tokens that a rule scores. */
export function scoredShare(rule: WindowRule): number {
  return rule.kind === "sliding" ? 1 : (rule.context - 1 - firstScored(rule.context)) / rule.context;
}

/** The first scored row of a chunk. */
function firstScored(context: number): number {
  return Math.floor(context / 2);
}

/** The windows of one document. @param ids - its tokens in pieces of any length, BOS first. */
export function cutWindows(ids: AsyncIterable<Int32Array>, rule: WindowRule, bosId: number): AsyncGenerator<Window> {
  return rule.kind === "sliding" ? slidingWindows(ids, rule) : llamaCppChunks(ids, rule.context, bosId);
}

async function* slidingWindows(
  ids: AsyncIterable<Int32Array>,
  { context, stride }: { context: number; stride: number },
): AsyncGenerator<Window> {
  let held: Int32Array = new Int32Array(0);
  let from = 0;
  for await (const piece of ids) {
    held = joined(held, piece);
    // A full window also needs the id that follows it.
    for (; held.length > context; held = held.subarray(stride)) {
      yield { tokens: held.subarray(0, context), from, targets: held.subarray(from + 1, context + 1) };
      from = context - stride;
    }
  }
  const last = held.length - 1;
  if (last > from) yield { tokens: held.subarray(0, last), from, targets: held.subarray(from + 1) };
}

async function* llamaCppChunks(ids: AsyncIterable<Int32Array>, context: number, bosId: number): AsyncGenerator<Window> {
  const from = firstScored(context);
  let held: Int32Array = new Int32Array(0);
  for await (const piece of ids) {
    held = joined(held, piece);
    for (; held.length >= context; held = held.subarray(context)) {
      // What stands behind the last scored row cannot change it.
      const tokens = held.slice(0, context - 1);
      tokens[0] = bosId;
      yield { tokens, from, targets: held.subarray(from + 1, context) };
    }
  }
}

function joined(a: Int32Array, b: Int32Array): Int32Array {
  const both = new Int32Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
