/** The loss of a model on the beginning of a text: whether its weights stand where they belong. */

import { openTexts } from "../data/node.ts";
import { NumericError } from "../core/errors.ts";
import { evaluatePerplexity } from "../evaluate/index.ts";
import { openScorer } from "../evaluate/node.ts";
import { openBackend } from "./options.ts";

/** Of ln V, the loss of a model that knows nothing. */
const MOST = 0.75;
const CONTEXT = 512;

export interface FirstLoss {
  readonly tokens: number;
  readonly nats: number;
  /** The loss of equal chances for all tokens: ln V. */
  readonly chance: number;
}

/**
 * @param model - a folder or a .gguf file.
 * @param text - the path of a text; its first 512 tokens are scored, or as many as the context of the model holds.
 * @throws NumericError when the loss is above three quarters of ln V.
 */
export async function firstLoss(model: string, text: string): Promise<FirstLoss> {
  const { documents } = await openTexts([text], process.cwd());
  using backend = openBackend({});
  using scorer = await openScorer(model, backend);
  const { vocabSize, maxSeqLen } = scorer.config;
  const context = Math.min(CONTEXT, maxSeqLen);
  const first = new AbortController();
  const { tokens, nats } = await evaluatePerplexity(scorer, {
    documents: documents(),
    windows: { kind: "sliding", context, stride: context },
    signal: first.signal,
    onProgress: ({ tokens: scored }) => {
      if (scored > 0) first.abort();
    },
  });
  const chance = Math.log(vocabSize);
  if (nats <= MOST * chance) return { tokens, nats, chance };
  const rule = `must foretell ${text} far better than chance (${chance.toFixed(2)} nats a token): at most ${(MOST * chance).toFixed(2)}`;
  const cure = "the weights stand in wrong places, or the model never learned such a text";
  throw new NumericError(model, rule, Number(nats.toFixed(2)), cure);
}
