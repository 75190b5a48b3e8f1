/** Small models with weights large enough that routing and attention are far from uniform, and texts for them. */

import { Rng } from "../../src/core/index.ts";
import type { ModelConfig } from "../../src/config/index.ts";
import {
  DeepSeekModel,
  allocateParameters,
  ropeTable,
  type ParameterSet,
  type TrainingBatch,
} from "../../src/model/index.ts";
import type { Parameter, Scope, Tensor } from "../../src/tensor/index.ts";

/** The f32 and f64 values of a tensor. */
export function valuesOf(tensor: Tensor): Float64Array {
  const { buffer } = tensor.readBytes().slice();
  return tensor.dtype === "f64" ? new Float64Array(buffer) : Float64Array.from(new Float32Array(buffer));
}

/** Allocates parameters in `scope`, in its dtype; their values depend on seed and name alone. */
export function randomParameters(scope: Scope, config: ModelConfig, seed = 1): ParameterSet {
  const parameters = allocateParameters(scope, config);
  for (const parameter of parameters) {
    const rng = new Rng(seed, parameter.name);
    const values = Float64Array.from({ length: parameter.value.size }, () => valueOf(parameter, 2 * rng.uniform() - 1));
    parameter.value.write(scope.dtype === "f64" ? values : Float32Array.from(values));
  }
  return parameters;
}

/** Norms around 1, router biases of both signs, matrices that keep the size of what they multiply. */
function valueOf({ name, shape }: Parameter, uniform: number): number {
  if (name.endsWith(".bias")) return 0.2 * uniform;
  if (shape.length === 1) return 1 + 0.3 * uniform;
  if (name === "embed") return uniform;
  return uniform * 2 * Math.sqrt(3 / shape.at(-1)!);
}

export function randomModel(scope: Scope, config: ModelConfig, seed = 1): DeepSeekModel {
  return new DeepSeekModel(config, randomParameters(scope, config, seed));
}

export function randomTokens(config: ModelConfig, length: number, seed = 1): number[] {
  const rng = new Rng(seed, "tokens");
  return Array.from({ length }, () => Math.floor(rng.uniform() * config.vocabSize));
}

/** Documents one after another as rows of a batch, each seeing only itself; plain arrays. */
export interface PackedDocuments {
  readonly tokens: readonly number[];
  readonly targets: readonly number[];
  readonly positions: readonly number[];
  readonly seqStarts: readonly number[];
  readonly mtp: readonly { readonly tokens: readonly number[]; readonly targets: readonly number[] }[];
}

export function packDocuments(documents: readonly (readonly number[])[], mtpDepth = 0): PackedDocuments {
  const tokens = documents.flat();
  const ahead = (by: number): number[] => documents.flatMap((doc) => doc.map((_, i) => doc[i + by] ?? -1));
  const seqStarts = [0];
  for (const { length } of documents) seqStarts.push(seqStarts.at(-1)! + length);
  return {
    tokens,
    targets: ahead(1),
    positions: documents.flatMap((doc) => doc.map((_, i) => i)),
    seqStarts,
    // Behind a document's end stands the next one's token, as in a window of a stream.
    mtp: Array.from({ length: mtpDepth }, (_, k) => ({
      tokens: tokens.map((_, i) => tokens[i + k + 1] ?? 0),
      targets: ahead(k + 2),
    })),
  };
}

export function uploadPacked(scope: Scope, config: ModelConfig, packed: PackedDocuments): TrainingBatch {
  const ints = (values: readonly number[]): Tensor => scope.from(values, [values.length], "i32");
  const length = Math.max(...packed.positions) + 1;
  return {
    tokens: ints(packed.tokens),
    targets: ints(packed.targets),
    positions: ints(packed.positions),
    seqStarts: ints(packed.seqStarts),
    ropeTable: scope.from(ropeTable(config, length), [length, config.qkRopeHeadDim]),
    mtp: packed.mtp.map(({ tokens, targets }) => ({ tokens: ints(tokens), targets: ints(targets) })),
  };
}
