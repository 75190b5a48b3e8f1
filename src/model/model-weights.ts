/** What a model is made of, whatever holds the values: parameters that are trained, or a checkpoint where it lies. */

import type { Parameter, StoredMatrix, Weight } from "../tensor/index.ts";

/** Keys [H, C, P], which are W_kᵀ, and values [H, U, C] of the matrix that expands latents, as GGUF files have them. */
export interface SplitHeads {
  readonly keys: StoredMatrix;
  readonly values: StoredMatrix;
}

/** The weights of a model by the names of its blueprint: `layers.3.attn.wo`. */
export interface ModelWeights {
  /** What they take of memory, windows of mapped files included. */
  readonly bytes: number;
  /** A norm, or the router's bias. */
  vector(name: string): Parameter;
  /** [out, in]; of routed experts [E, out, in]. */
  matrix(name: string): Weight;
  /** The matrix [H · (P+U), C] that expands latents into keys and values, or its halves apart. */
  heads(name: string): Weight | SplitHeads;
}
