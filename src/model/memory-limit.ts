/** Whether weights fit into the memory of this machine. */

import { MemoryError } from "../core/errors.ts";

/**
 * Refuses weights before any memory is taken for them.
 * @param place - the model, for the error.
 * @param bytes - of the weights in memory.
 * @throws MemoryError with both numbers when they are above the limit.
 */
export function checkMemory(place: string, bytes: number, limit: number): void {
  if (bytes <= limit) return;
  const cure =
    "in memory bf16 and quantised matrices take 2 bytes a weight, all others 4; free some, take a smaller model, or raise the limit";
  throw new MemoryError(place, bytes, limit, cure);
}
