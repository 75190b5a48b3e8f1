/** The engine over a model on the local disk. */

import type { Backend } from "../kernels/index.ts";
import { availableBytes } from "../kernels/node.ts";
import { checkRunnable } from "../model/index.ts";
import { openWeights, readModelConfig, resolveModelFolder } from "../model/node.ts";
import { checkTokenRows, type Tokenizer } from "../tokenizer/index.ts";
import { loadTokenizer } from "../tokenizer/node.ts";
import { Engine, type GemmImpl, type TextCodec } from "./engine.ts";

export interface OpenEngineOptions {
  /** A run folder, a checkpoint, a Hugging Face model folder, or a .gguf file (of a split one, any part). */
  readonly folder: string;
  readonly backend: Backend;
  /** The model's tokenizer, where it has been loaded already. */
  readonly tokenizer?: Tokenizer | undefined;
  /** Clock in milliseconds. */
  readonly now: () => number;
  /** Bytes that weights, cache and activations may take together; by default what is available when it opens. */
  readonly memoryLimit?: number | undefined;
  /** By default what the model's settings say. */
  readonly gemmImpl?: GemmImpl | undefined;
}

/**
 * Loads a model for generation.
 *
 * @throws IoError when a file is missing, FormatError when one is malformed, the weights are not the model's, or the
 * tokenizer has ids beyond its rows, UnsupportedError for a model that does not run here, MemoryError before any allocation
 * when the weights need more memory than there is; a request that does is refused in the same way.
 */
export async function openEngine(options: OpenEngineOptions): Promise<Engine> {
  const { folder, backend, now, memoryLimit: limit = availableBytes() } = options;
  const path = await resolveModelFolder(folder);
  const settings = await readModelConfig(path, options.gemmImpl);
  checkRunnable(settings.model);
  const tokenizer = options.tokenizer ?? (await loadTokenizer(path));
  const { bosId, eosId, padId } = tokenizer;
  const surplus = checkTokenRows(tokenizer, settings.model.vocabSize, path);
  const codec: TextCodec = {
    bosId,
    eosId,
    neverGenerated: [bosId, padId, ...surplus].filter((id) => id !== eosId),
    encode: (text) => tokenizer.encode(text),
    createDecoder: () => tokenizer.createDecoder(),
  };
  return Engine.open({
    backend,
    settings,
    codec,
    now,
    openWeights: (scope) => openWeights(scope, path, settings.model, limit),
    memory: { place: path, limit },
  });
}
