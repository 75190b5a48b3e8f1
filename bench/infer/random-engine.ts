/** An engine over random weights whose tokens pass through unseen: for measuring speed. */

import type { ResolvedConfig } from "../../src/config/index.ts";
import { Engine } from "../../src/infer/index.ts";
import type { Backend } from "../../src/kernels/index.ts";
import { allocateParameters, initialiseParameters } from "../../src/model/index.ts";

export const PROMPT_TOKENS = 64;

/** It never meets an end of sequence. */
const codec = {
  bosId: 0,
  eosId: -1,
  encode: (text: string) => Array.from(text, (_, i) => 2 + (i % 200)),
  createDecoder: () => ({ push: () => "", flush: () => "" }),
};

export function openRandomEngine(backend: Backend, settings: ResolvedConfig): Promise<Engine> {
  return Engine.open({
    backend,
    settings,
    codec,
    now: () => performance.now(),
    openWeights: (scope) => {
      const parameters = allocateParameters(scope, settings.model);
      initialiseParameters(scope, parameters, 0);
      return parameters;
    },
  });
}

/** Tokens per second of decoding after a prompt of PROMPT_TOKENS, BOS included. */
export async function decodeRate(engine: Engine): Promise<number> {
  let rate = 0;
  const prompt = "x".repeat(PROMPT_TOKENS - 1);
  for await (const { end } of engine.generate(prompt, engine.settings.generation)) rate = end?.tokensPerSec ?? 0;
  return rate;
}
