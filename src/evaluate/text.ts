/** From streamed texts to windows of tokens: no document is ever held whole. */

import { ConfigError } from "../core/errors.ts";
import { nextTurn } from "../core/turn.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import { cutWindows, type Window, type WindowRule } from "./windows.ts";

export interface EvaluationText {
  /** Each document as pieces of its text, which are encoded one by one. Every document begins with BOS. */
  readonly documents: AsyncIterable<AsyncIterable<string>>;
  readonly windows: WindowRule;
  /** Ends the evaluation before the next window. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: EvaluationProgress) => void;
}

/** What is scored so far. */
export interface EvaluationProgress {
  readonly windows: number;
  readonly tokens: number;
  /** UTF-8 bytes of the scored tokens. */
  readonly bytes: number;
  /** Mean of what is measured, in nats. */
  readonly mean: number;
}

export async function* textWindows(
  tokenizer: Tokenizer,
  { documents, windows, signal }: EvaluationText,
): AsyncGenerator<Window> {
  for await (const pieces of documents) {
    for await (const window of cutWindows(documentIds(tokenizer, pieces), windows, tokenizer.bosId)) {
      if (signal?.aborted === true) return;
      yield window;
      await nextTurn();
    }
  }
}

async function* documentIds(tokenizer: Tokenizer, pieces: AsyncIterable<string>): AsyncGenerator<Int32Array> {
  yield Int32Array.of(tokenizer.bosId);
  // A document that spells a special token is text about it, not one.
  for await (const text of pieces) yield tokenizer.encode(text, { allowSpecial: false });
}

/** A standard error asks for two values. */
const MIN_TOKENS = 2;

/** @throws ConfigError when a text that was read to its end held too little to measure. */
export function checkScored(tokens: number, { windows, signal }: EvaluationText): void {
  if (tokens >= MIN_TOKENS || signal?.aborted === true) return;
  const rule =
    windows.kind === "sliding"
      ? `must hold at least ${MIN_TOKENS} tokens to score`
      : `must fill at least one chunk of ${windows.context} tokens`;
  throw new ConfigError("--data", rule, tokens, "give longer text");
}
