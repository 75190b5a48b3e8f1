/** AdamW over a set of parameters: moments, decay only where the blueprint says so, bf16 copies kept fresh. */

import type { TrainingConfig } from "../config/index.ts";
import type { Parameter, Scope, Tensor } from "../tensor/index.ts";

export interface AdamwParameter {
  readonly parameter: Parameter;
  /** False for norms. */
  readonly decay: boolean;
}

/** First and second moment of one parameter, of its shape. */
export interface Moments {
  readonly name: string;
  readonly m: Tensor;
  readonly v: Tensor;
}

type AdamwConfig = Pick<TrainingConfig, "beta1" | "beta2" | "adamEps" | "weightDecay">;

interface Slot extends AdamwParameter, Moments {}

/** **Source:** Loshchilov & Hutter 2019 (arXiv 1711.05101), algorithm 2. */
export class AdamW {
  readonly #config: AdamwConfig;
  readonly #slots: readonly Slot[];

  /** Allocates zero moments in `scope`. */
  constructor(scope: Scope, parameters: readonly AdamwParameter[], config: AdamwConfig) {
    this.#config = config;
    this.#slots = parameters.map(({ parameter, decay }) => {
      const zeros = (label: string): Tensor => {
        const y = scope.empty(parameter.shape, parameter.value.dtype, `${label} ${parameter.name}`);
        scope.run("fill", { y }, { n: y.size, value: 0 });
        return y;
      };
      return { parameter, decay, name: parameter.name, m: zeros("m"), v: zeros("v") };
    });
  }

  get moments(): readonly Moments[] {
    return this.#slots;
  }

  /**
   * One update of every parameter. Parameters without a gradient are left alone.
   *
   * @param update.step counted from 1; @param update.gradScale multiplies gradients (1, or what clipping asks).
   */
  step(scope: Scope, update: { step: number; lr: number; gradScale: number }): void {
    const { beta1, beta2, adamEps: eps, weightDecay } = this.#config;
    const { step, lr, gradScale } = update;
    const correction1 = 1 - beta1 ** step;
    const correction2 = 1 - beta2 ** step;
    for (const { parameter, decay, m, v } of this.#slots) {
      if (parameter.grad === null) continue;
      scope.run(
        "adamwInto",
        { p: parameter.value, g: parameter.grad, m, v, copy: parameter.copy ?? undefined },
        {
          n: parameter.value.size,
          lr,
          beta1,
          beta2,
          eps,
          weightDecay: decay ? weightDecay : 0,
          correction1,
          correction2,
          gradScale,
        },
      );
    }
  }
}
