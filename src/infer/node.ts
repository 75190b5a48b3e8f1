/** The engine over a model on the local disk. */

import type { Backend } from "../kernels/index.ts";
import { checkRunnable } from "../model/index.ts";
import { loadParameters, readModelConfig, resolveModelFolder } from "../model/node.ts";
import { checkTokenRows } from "../tokenizer/index.ts";
import { loadTokenizer } from "../tokenizer/node.ts";
import { Engine, type TextCodec } from "./engine.ts";

export interface OpenEngineOptions {
  /** A run folder, a checkpoint, a Hugging Face model folder, or a .gguf file (of a split one, any part). */
  readonly folder: string;
  readonly backend: Backend;
  /** Clock in milliseconds. */
  readonly now: () => number;
  /** Bytes that the weights may take; by default what is available. */
  readonly memoryLimit?: number | undefined;
}

/**
 * Loads a model for generation.
 *
 * @throws IoError when a file is missing, FormatError when one is malformed, the weights are not the model's, or the
 * tokenizer has ids beyond its rows, UnsupportedError for a model that does not run here, MemoryError before any allocation
 * when the weights need more memory than there is.
 */
export async function openEngine({ folder, backend, now, memoryLimit }: OpenEngineOptions): Promise<Engine> {
  const path = await resolveModelFolder(folder);
  const settings = await readModelConfig(path);
  checkRunnable(settings.model);
  const tokenizer = await loadTokenizer(path);
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
    loadParameters: (scope) => loadParameters(scope, path, settings.model, memoryLimit),
  });
}
