/** State: a named matrix or vector that training changes, its gradient, and (for bf16 products) a rounded copy. */

import { invariant } from "../core/errors.ts";
import type { Scope } from "./scope.ts";
import type { Shape, Tensor } from "./tensor.ts";

export class Parameter {
  readonly name: string;
  readonly value: Tensor;
  readonly trainable: boolean;
  /** bf16 copy that the optimizer refreshes, read by products in bf16. */
  copy: Tensor | null = null;
  #grad: Tensor | null = null;
  #gradWritten = false;

  constructor(name: string, value: Tensor, trainable = true) {
    this.name = name;
    this.value = value;
    this.trainable = trainable;
  }

  get shape(): Shape {
    return this.value.shape;
  }

  /** The gradient of this step, or null when nothing has reached this parameter. */
  get grad(): Tensor | null {
    return this.#gradWritten ? this.#grad : null;
  }

  /** Where the next contribution to the gradient goes; the first one of a step overwrites, later ones add. */
  gradTarget(): { tensor: Tensor; accumulate: boolean } {
    invariant(this.#grad !== null, `parameter ${this.name} has a gradient buffer`);
    const accumulate = this.#gradWritten;
    this.#gradWritten = true;
    return { tensor: this.#grad, accumulate };
  }

  /** Gives the parameter a gradient buffer that lives as long as `scope`. */
  allocateGrad(scope: Scope): void {
    this.#grad = scope.empty(this.shape, this.value.dtype, `grad ${this.name}`);
  }

  /** Forgets the gradient without touching memory. */
  clearGrad(): void {
    this.#gradWritten = false;
  }
}
