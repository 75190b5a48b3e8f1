/** What a tokenizer asks of the rows of a model's embedding. */
import { FormatError } from "../core/errors.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * Checks that the model has a row for every id. Fewer ids than rows is normal: 128,815 in the 129,280 rows of V3.
 * @param file the tokenizer, for the error
 * @returns the ids of the surplus rows, which stand for no token and must never be sampled
 * @throws FormatError when an id is beyond the rows.
 */
export function checkTokenRows(tokenizer: Pick<Tokenizer, "vocabSize">, rows: number, file: string): number[] {
  const { vocabSize } = tokenizer;
  if (vocabSize > rows) {
    const cure = "the tokenizer belongs to another model";
    throw new FormatError(file, `must have ids below ${rows}, the rows of the embedding`, { got: vocabSize - 1, cure });
  }
  return Array.from({ length: rows - vocabSize }, (_, i) => vocabSize + i);
}
