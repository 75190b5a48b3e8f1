/** How far the distributions of one model are from those of another on the same tokens. */

import { ConfigError, NumericError, invariant } from "../core/errors.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import type { Scorer } from "./scorer.ts";
import { checkScored, textWindows, type EvaluationText } from "./text.ts";

/** KL(A‖B) of the next token's distribution, in nats, over all scored tokens. */
export interface Divergence {
  readonly windows: number;
  readonly tokens: number;
  readonly mean: number;
  readonly meanError: number;
  /** Linear between neighbours in order. */
  readonly percentile50: number;
  readonly percentile90: number;
  readonly percentile99: number;
  readonly max: number;
  /** Share of the tokens for which both models hold the same id likeliest. */
  readonly topOneAgreement: number;
}

/**
 * KL(A‖B) on texts, cut by A's tokenizer; of what was read when the signal stopped it.
 *
 * @throws ConfigError when the vocabularies differ or the texts hold too few tokens, NumericError when a divergence is not
 * finite.
 */
export async function evaluateDivergence(a: Scorer, b: Scorer, text: EvaluationText): Promise<Divergence> {
  checkSameVocabulary(a, b);
  const tokenBytes = a.tokenizer.tokenBytes();
  const values: number[] = [];
  let [windows, agreements, bytes, sum] = [0, 0, 0, 0];
  for await (const window of textWindows(a.tokenizer, text)) {
    for await (const [rowA, rowB] of rowPairs(a.logits(window), b.logits(window), a.config.vocabSize)) {
      const value = divergence(rowA, rowB);
      values.push(value);
      sum += value;
      agreements += Number(likeliest(rowA) === likeliest(rowB));
    }
    windows++;
    for (const id of window.targets) bytes += tokenBytes[id] ?? 0;
    text.onProgress?.({ windows, tokens: values.length, bytes, mean: sum / values.length });
  }
  checkScored(values.length, text);
  return { windows, topOneAgreement: agreements / values.length, ...distributionOf(Float64Array.from(values)) };
}

type Row = Float32Array;

async function* rowPairs(
  a: AsyncGenerator<Float32Array>,
  b: AsyncGenerator<Float32Array>,
  vocab: number,
): AsyncGenerator<[Row, Row]> {
  try {
    for await (const logitsA of a) {
      const { value: logitsB } = await b.next();
      invariant(logitsB?.length === logitsA.length, "both models give logits in the same chunks");
      for (let at = 0; at < logitsA.length; at += vocab) {
        yield [logitsA.subarray(at, at + vocab), logitsB.subarray(at, at + vocab)];
      }
    }
  } finally {
    await b.return(undefined);
  }
}

/**
 * KL(A‖B) = Σ pA (ln pA − ln pB) in nats of the distributions softmax(a) and softmax(b).
 * @throws NumericError when it is not finite.
 */
export function divergence(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const [normA, normB] = [logSumExp(a), logSumExp(b)];
  let sum = 0;
  for (let id = 0; id < a.length; id++) {
    const logP = a[id]! - normA;
    sum += Math.exp(logP) * (logP - (b[id]! - normB));
  }
  if (!Number.isFinite(sum)) throw new NumericError("divergence", "must be finite", sum, "check the weights");
  // It is never negative; rounding can make it so.
  return Math.max(0, sum);
}

function logSumExp(logits: ArrayLike<number>): number {
  const max = logits[likeliest(logits)]!;
  let sum = 0;
  for (let id = 0; id < logits.length; id++) sum += Math.exp(logits[id]! - max);
  return max + Math.log(sum);
}

function likeliest(logits: ArrayLike<number>): number {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[best]!) best = id;
  return best;
}

type Distribution = Omit<Divergence, "windows" | "topOneAgreement">;

export function distributionOf(values: Float64Array): Distribution {
  const sorted = values.toSorted();
  const tokens = sorted.length;
  const mean = sorted.reduce((sum, value) => sum + value, 0) / tokens;
  const squares = sorted.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return {
    tokens,
    mean,
    meanError: Math.sqrt(squares / (tokens - 1) / tokens),
    percentile50: percentile(sorted, 0.5),
    percentile90: percentile(sorted, 0.9),
    percentile99: percentile(sorted, 0.99),
    max: percentile(sorted, 1),
  };
}

function percentile(sorted: Float64Array, share: number): number {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const [low, high] = [sorted[below]!, sorted[Math.min(below + 1, sorted.length - 1)]!];
  return low + (place - below) * (high - low);
}

/** Distributions can be compared only over the same ids with the same meaning. */
function checkSameVocabulary(a: Scorer, b: Scorer): void {
  const [rowsA, rowsB] = [a.config.vocabSize, b.config.vocabSize];
  if (rowsA !== rowsB) {
    throw differs(`as many rows in its head as A (${rowsA})`, rowsB);
  }
  const [ofA, ofB] = [tokensOf(a.tokenizer), tokensOf(b.tokenizer)];
  const [longer, shorter] = ofA.size >= ofB.size ? [ofA, ofB] : [ofB, ofA];
  for (const [token, id] of longer) {
    if (shorter.get(token) === id) continue;
    throw differs(
      `the vocabulary of A, where ${JSON.stringify(token)} is ${ofA.get(token) ?? "no token"}`,
      ofB.get(token),
    );
  }
}

function differs(rule: string, got: unknown): ConfigError {
  return new ConfigError("model B", `must have ${rule}`, got ?? "none", "give two models of one vocabulary");
}

/** Every token, the added ones among them, as tokenizer.json spells it → its id. */
function tokensOf(tokenizer: Tokenizer): Map<string, number> {
  const json = JSON.parse(tokenizer.toJson()) as {
    model: { vocab: Record<string, number> };
    added_tokens: readonly { id: number; content: string }[];
  };
  const added = json.added_tokens.map(({ id, content }) => [content, id] as const);
  return new Map([...Object.entries(json.model.vocab), ...added]);
}
