/** How well a model foretells a text: nats per token, bits per byte and perplexity, each with its standard error. */

import type { Scorer } from "./scorer.ts";
import { checkScored, textWindows, type EvaluationText } from "./text.ts";

export interface Perplexity {
  readonly windows: number;
  /** Scored tokens. */
  readonly tokens: number;
  /** UTF-8 bytes of the scored tokens. */
  readonly bytes: number;
  /** Mean loss of a token. */
  readonly nats: number;
  readonly natsError: number;
  readonly bitsPerByte: number;
  readonly bitsPerByteError: number;
  /** `exp(nats)`. */
  readonly perplexity: number;
  readonly perplexityError: number;
}

/**
 * The perplexity of a model on texts; of what was read when the signal stopped it.
 *
 * @throws ConfigError when the texts hold too few tokens to score, NumericError when a loss is not finite.
 */
export async function evaluatePerplexity(scorer: Scorer, text: EvaluationText): Promise<Perplexity> {
  const tokenBytes = scorer.tokenizer.tokenBytes();
  const statistics = new LossStatistics();
  for await (const window of textWindows(scorer.tokenizer, text)) {
    const losses = await scorer.losses(window);
    losses.forEach((loss, i) => statistics.add(loss, tokenBytes[window.targets[i]!] ?? 0));
    statistics.windows++;
    text.onProgress?.(statistics.progress());
  }
  checkScored(statistics.tokens, text);
  return statistics.result();
}

/** Sums of losses x in nats and of bytes b, from which means and errors follow. */
export class LossStatistics {
  windows = 0;
  tokens = 0;
  #bytes = 0;
  #loss = 0;
  #lossSquared = 0;
  #lossTimesBytes = 0;
  #bytesSquared = 0;

  add(loss: number, bytes: number): void {
    this.tokens++;
    this.#bytes += bytes;
    this.#loss += loss;
    this.#lossSquared += loss * loss;
    this.#lossTimesBytes += loss * bytes;
    this.#bytesSquared += bytes * bytes;
  }

  progress(): { windows: number; tokens: number; bytes: number; mean: number } {
    return { windows: this.windows, tokens: this.tokens, bytes: this.#bytes, mean: this.#loss / this.tokens };
  }

  /**
   * Errors take the tokens for independent draws. That of nats is `s / √n`; that of the perplexity follows by its slope;
   * bits per byte is the ratio `r = Σx / Σb` with the error `√(n / (n − 1) · Σ(x − r b)²) / Σb`.
   * **Source:** Cochran, Sampling Techniques, 3rd ed., 2.11 (ratio estimates).
   */
  result(): Perplexity {
    const { windows, tokens, bytes, mean: nats } = this.progress();
    const natsError = this.#errorOf(this.#lossSquared - (this.#loss * this.#loss) / tokens, tokens);
    const ratio = this.#loss / bytes;
    const residual = this.#lossSquared - 2 * ratio * this.#lossTimesBytes + ratio * ratio * this.#bytesSquared;
    const perplexity = Math.exp(nats);
    return {
      ...{ windows, tokens, bytes, nats, natsError },
      bitsPerByte: ratio / Math.LN2,
      bitsPerByteError: this.#errorOf(residual, bytes) / Math.LN2,
      perplexity,
      perplexityError: perplexity * natsError,
    };
  }

  /** Rounding can leave a sum of squares just under 0. */
  #errorOf(sumOfSquares: number, over: number): number {
    return Math.sqrt((Math.max(0, sumOfSquares) * this.tokens) / (this.tokens - 1)) / over;
  }
}
