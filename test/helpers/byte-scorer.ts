/** A scorer over a small random model whose tokens are bytes, and texts for it. */

import { resolveConfig, type ConfigInput, type ResolvedConfig } from "../../src/config/index.ts";
import { Scorer, type EvaluationText, type WindowRule } from "../../src/evaluate/index.ts";
import { createReferenceBackend, type Backend } from "../../src/kernels/index.ts";
import { createByteTokenizer } from "./byte-tokenizer.ts";
import { randomParameters } from "./random-model.ts";

export function byteModel(overrides: ConfigInput = {}): ResolvedConfig {
  return resolveConfig("tiny", {
    ...{ vocab_size: 259, dim: 16, inter_dim: 24, moe_inter_dim: 8, max_seq_len: 96, n_mtp_layers: 0 },
    ...overrides,
  });
}

interface ByteScorerOptions {
  readonly settings?: ResolvedConfig;
  readonly seed?: number;
  readonly backend?: Backend;
}

export function openByteScorer(options: ByteScorerOptions = {}): Promise<Scorer> {
  const { settings = byteModel(), seed = 6, backend = createReferenceBackend() } = options;
  const openWeights: Parameters<typeof Scorer.open>[0]["openWeights"] = (scope) =>
    randomParameters(scope, settings.model, seed);
  return Scorer.open({ backend, settings, tokenizer: createByteTokenizer(), openWeights });
}

/** Documents, each of several pieces. */
export function textOf(documents: readonly (readonly string[])[], windows: WindowRule): EvaluationText {
  async function* items<T>(values: readonly T[]): AsyncGenerator<T> {
    yield* values;
  }
  async function* streams(): AsyncGenerator<AsyncIterable<string>> {
    for (const pieces of documents) yield items(pieces);
  }
  return { documents: streams(), windows };
}
