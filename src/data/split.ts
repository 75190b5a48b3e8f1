/** Which documents are held out. The choice depends on a document's number alone, so it needs no second pass. */

import { ConfigError } from "../core/errors.ts";
import { philox4x32, streamKey } from "../core/rng.ts";

/**
 * One document in every `round(1 / fraction)` consecutive ones is held out, which one is drawn by a keyed hash. In the
 * first group it is always number 1, so that two documents are enough for a training and a validation split. Held-out
 * documents are thus spread evenly over a corpus that is sorted by date, author or file.
 *
 * @param fraction - share of documents held out, in (0, 0.5].
 * @returns whether the document with this number (from 0) is held out.
 * @throws ConfigError when the fraction is outside its range.
 */
export function createSplit(fraction: number): (documentNumber: number) => boolean {
  if (!(fraction > 0 && fraction <= 0.5)) {
    throw new ConfigError("validation_fraction", "must be above 0 and at most 0.5", fraction);
  }
  const groupSize = Math.round(1 / fraction);
  const key = streamKey(0, "data.validation");
  const heldOut = (group: number): number =>
    group === 0 ? 1 : philox4x32([group >>> 0, Math.floor(group / 2 ** 32), 0, 0], key)[0] % groupSize;
  return (documentNumber) => documentNumber % groupSize === heldOut(Math.floor(documentNumber / groupSize));
}
