/** How long a released model was trained. */

/** Optimizer steps in which `tokens` are read, at the full batch from the first step on. */
export function stepsFor(tokens: number, { seqLen, batchSize }: { seqLen: number; batchSize: number }): number {
  return Math.round(tokens / (seqLen * batchSize));
}
