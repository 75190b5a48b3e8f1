/** Random tokens as one long document, and a trainer on them, for measuring speed. */

import type { RunConfig } from "../src/config/index.ts";
import { Rng } from "../src/core/index.ts";
import type { TokenStream } from "../src/data/index.ts";
import type { Backend } from "../src/kernels/index.ts";
import { Trainer } from "../src/train/index.ts";

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

/** @param steps about how many steps the text lasts before it repeats. */
export function createRandomTrainer(backend: Backend, config: RunConfig, steps: number): Trainer {
  const text = randomText(config, steps);
  const tokenBytes = new Uint8Array(config.model.vocabSize).fill(1);
  return new Trainer({ backend, config, train: text, validation: text, tokenBytes, now: () => performance.now() });
}
