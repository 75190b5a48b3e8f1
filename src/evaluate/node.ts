/** The scorer over a model on the local disk. */

import type { ResolvedConfig } from "../config/index.ts";
import type { Backend } from "../kernels/index.ts";
import { availableBytes } from "../kernels/node.ts";
import { checkRunnable } from "../model/index.ts";
import { openWeights, readModelConfig, resolveModelFolder } from "../model/node.ts";
import { checkTokenRows } from "../tokenizer/index.ts";
import { loadTokenizer } from "../tokenizer/node.ts";
import { Scorer } from "./scorer.ts";

export interface OpenScorerOptions {
  /** Bytes that weights and activations may take together; by default what is available when it opens. */
  readonly memoryLimit?: number | undefined;
  /** By default what the model's settings say. */
  readonly gemmImpl?: ResolvedConfig["runtime"]["gemmImpl"] | undefined;
}

/**
 * Loads a model for scoring.
 *
 * @param path - a run folder, a checkpoint, a Hugging Face model folder, or a .gguf file.
 * @throws IoError when a file is missing, FormatError when one is malformed, the weights are not the model's, or the
 * tokenizer has ids beyond its rows, UnsupportedError for a model that does not run here, MemoryError before any
 * allocation when the weights need more memory than there is.
 */
export async function openScorer(path: string, backend: Backend, options: OpenScorerOptions = {}): Promise<Scorer> {
  const { memoryLimit = availableBytes() } = options;
  const folder = await resolveModelFolder(path);
  const settings = await readModelConfig(folder, options.gemmImpl);
  checkRunnable(settings.model);
  const tokenizer = await loadTokenizer(folder);
  checkTokenRows(tokenizer, settings.model.vocabSize, folder);
  return Scorer.open({
    backend,
    settings,
    tokenizer,
    openWeights: (scope) => openWeights(scope, folder, settings.model, memoryLimit),
    memory: { place: folder, limit: memoryLimit },
  });
}
