/** Weights that are a function of seed, name and place, as scripts/golden/architectures.py draws them too. */

import { blueprint, checkpointNames } from "../../src/blueprint/index.ts";
import type { ModelConfig } from "../../src/config/index.ts";
import { Rng } from "../../src/core/index.ts";
import type { TensorReader } from "../../src/formats/index.ts";

/** In [-1, 1), exact. */
function uniforms(seed: number, stream: string, count: number): Float64Array {
  const rng = new Rng(seed, stream);
  return Float64Array.from({ length: count }, () => rng.nextUint32() / 2 ** 31 - 1);
}

function drawWeight(seed: number, name: string, shape: readonly number[]): Float32Array {
  const u = uniforms(
    seed,
    name,
    shape.reduce((a, b) => a * b, 1),
  );
  if (name.endsWith("e_score_correction_bias")) return Float32Array.from(u, (value) => 0.6 * value - 0.2);
  if (shape.length === 1) return Float32Array.from(u, (value) => 1 + 0.3 * value);
  if (name === "model.embed_tokens.weight") return Float32Array.from(u, (value) => 0.1 * value);
  const scale = 2.5 / Math.sqrt(shape[1]!);
  return Float32Array.from(u, (value) => scale * value);
}

export interface DrawnTensor {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** All tensors of a checkpoint by their Hugging Face names. */
export function drawWeights(config: ModelConfig, seed: number): Map<string, DrawnTensor> {
  return new Map(
    checkpointNames(blueprint(config)).map(({ name, shape }) => [
      name,
      { shape, values: drawWeight(seed, name, shape) },
    ]),
  );
}

/** Tensors in memory as an open checkpoint in F32. */
export function readerOf(weights: ReadonlyMap<string, DrawnTensor>): TensorReader {
  const bytesOf = ({ values }: DrawnTensor): Uint8Array => new Uint8Array(values.buffer);
  const tensors = [...weights].map(([name, { shape, values }]) => {
    const tensor = { dtype: "F32", shape, offset: 0, bytes: values.byteLength, file: "drawn" } as const;
    return [name, tensor] as const;
  });
  return {
    tensors: new Map(tensors),
    metadata: {},
    read: (name, begin = 0, length) => {
      const bytes = bytesOf(weights.get(name)!);
      return Promise.resolve(bytes.subarray(begin, length === undefined ? undefined : begin + length));
    },
    close: () => Promise.resolve(),
  };
}
