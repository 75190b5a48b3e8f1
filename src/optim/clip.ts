/** Clipping by the global norm. */

/** The factor that brings a gradient of this norm to at most `maxNorm`; 1 when it is within, or maxNorm is 0. */
export function clipScale(norm: number, maxNorm: number): number {
  return maxNorm > 0 && norm > maxNorm ? maxNorm / norm : 1;
}
