/** Random tokens as one long document, for measuring speed. */

import type { RunConfig } from "../src/config/index.ts";
import { Rng } from "../src/core/index.ts";
import type { TokenStream } from "../src/data/index.ts";

/** @param steps about how many training steps the text lasts before it repeats. */
export function randomText({ model, training }: RunConfig, steps: number): TokenStream {
  const length = (steps * training.batchSize + 2) * training.seqLen;
  const rng = new Rng(1, "bench text");
  const tokens = Int32Array.from({ length }, () => Math.floor(rng.uniform() * model.vocabSize));
  return {
    length,
    read: (start, count) => tokens.slice(start, start + count),
    documentStarts: (from) => (from === 0 ? [0] : []),
  };
}
