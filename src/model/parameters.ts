/** The parameters of a model in memory: what the blueprint lists, allocated and initialised. */

import { blueprint, type ParameterSpec } from "../blueprint/index.ts";
import type { ModelConfig } from "../config/index.ts";
import { InternalError } from "../core/errors.ts";
import { streamKey } from "../core/rng.ts";
import { Parameter, type Scope } from "../tensor/index.ts";
import type { ModelWeights } from "./model-weights.ts";
import { checkRunnable } from "./runnable.ts";

export class ParameterSet implements ModelWeights, Iterable<Parameter> {
  readonly #byName: ReadonlyMap<string, Parameter>;
  readonly specs: ReadonlyMap<string, ParameterSpec>;

  constructor(parameters: readonly Parameter[], specs: readonly ParameterSpec[]) {
    this.#byName = new Map(parameters.map((parameter) => [parameter.name, parameter]));
    this.specs = new Map(specs.map((spec) => [spec.name, spec]));
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  get(name: string): Parameter {
    const parameter = this.#byName.get(name);
    if (parameter === undefined) throw new InternalError(`model: parameter ${name} stands in the blueprint`);
    return parameter;
  }

  [Symbol.iterator](): Iterator<Parameter> {
    return this.#byName.values();
  }

  /** Those that the optimizer changes. */
  get trainable(): Parameter[] {
    return [...this].filter((parameter) => parameter.trainable);
  }

  get bytes(): number {
    return [...this].reduce((sum, { value }) => sum + value.bytes, 0);
  }

  vector(name: string): Parameter {
    return this.get(name);
  }

  matrix(name: string): Parameter {
    return this.get(name);
  }

  heads(name: string): Parameter {
    return this.get(name);
  }
}

/** Allocates every parameter of the blueprint in `scope`, in its dtype and with undefined content. */
export function allocateParameters(scope: Scope, config: ModelConfig): ParameterSet {
  checkRunnable(config);
  const specs = blueprint(config).parameters;
  const parameters = specs.map(
    (spec) => new Parameter(spec.name, scope.empty(spec.shape, scope.dtype, spec.name), spec.kind === "trainable"),
  );
  return new ParameterSet(parameters, specs);
}

/** Fills every parameter as the blueprint says; each has its own random stream, so that order does not matter. */
export function initialiseParameters(scope: Scope, parameters: ParameterSet, seed: number): void {
  for (const parameter of parameters) {
    const { init } = parameters.specs.get(parameter.name)!;
    const y = parameter.value;
    if (init.kind === "normal") {
      const [keyLo, keyHi] = streamKey(seed, parameter.name);
      scope.run("randomNormal", { y }, { n: y.size, std: init.std, keyLo, keyHi });
    } else {
      scope.run("fill", { y }, { n: y.size, value: init.kind === "ones" ? 1 : 0 });
    }
  }
}
