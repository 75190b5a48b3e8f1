/** Whether a model, and what is asked of it, fit into the memory of this machine. */

import { byteText, MemoryError } from "../core/errors.ts";

export interface MemoryBudget {
  /** The model, for the error. */
  readonly place: string;
  /** Bytes that weights, cache and activations may take together. */
  readonly limit: number;
}

/**
 * Refuses weights before any memory is taken for them.
 * @throws MemoryError with both numbers when they are above the limit.
 */
export function checkWeights({ place, limit }: MemoryBudget, weights: number): void {
  if (weights <= limit) return;
  const cure =
    "weights take what they have in the file; free some memory, take a smaller model or type, or raise or leave out --memory-limit where it is given";
  throw new MemoryError(place, weights, limit, cure);
}

/**
 * Refuses a request before any memory is taken for it.
 * @param request - bytes of its cache and activations.
 * @param what - the request, for the error: `a text of 300 tokens`.
 * @throws MemoryError with both numbers when they and the weights are above the limit.
 */
export function checkRequest({ place, limit }: MemoryBudget, weights: number, request: number, what: string): void {
  if (weights + request <= limit) return;
  const cure = `${byteText(weights)} are weights, ${byteText(request)} cache and activations; ask for less, free some memory, or raise or leave out --memory-limit where it is given`;
  throw new MemoryError(`${place} with ${what}`, weights + request, limit, cure);
}
