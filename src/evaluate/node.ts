/** The scorer over a model on the local disk. */

import type { Backend } from "../kernels/index.ts";
import { checkRunnable } from "../model/index.ts";
import { loadParameters, readModelConfig, resolveModelFolder } from "../model/node.ts";
import { checkTokenRows } from "../tokenizer/index.ts";
import { loadTokenizer } from "../tokenizer/node.ts";
import { Scorer } from "./scorer.ts";

/**
 * Loads a model for scoring.
 *
 * @param path a run folder, a checkpoint, or a Hugging Face model folder.
 * @throws IoError when a file is missing, FormatError when one is malformed, the weights are not the model's, or the
 * tokenizer has ids beyond its rows, UnsupportedError for a model that does not run here.
 */
export async function openScorer(path: string, backend: Backend): Promise<Scorer> {
  const folder = await resolveModelFolder(path);
  const settings = await readModelConfig(folder);
  checkRunnable(settings.model);
  const tokenizer = await loadTokenizer(folder);
  checkTokenRows(tokenizer, settings.model.vocabSize, folder);
  return Scorer.open({
    backend,
    settings,
    tokenizer,
    loadParameters: (scope) => loadParameters(scope, folder, settings.model),
  });
}
