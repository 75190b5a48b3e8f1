/** Small checkpoint folders with random content in every stored type, and their values read the plain way. */

import { join } from "node:path";
import { mkdirSync, writeFileSync } from "node:fs";
import { blueprint, releasedTensors, type ReleasedTensor } from "../../src/blueprint/index.ts";
import { hfConfigText, type ModelConfig } from "../../src/config/index.ts";
import { fromBf16Bits, toBf16Bits } from "../../src/core/dtype.ts";
import { E2M1_VALUES, fromE4m3Bits, fromE8m0Bits, fromF16Bits, toF16Bits } from "../../src/core/float-formats.ts";
import { Rng } from "../../src/core/index.ts";
import { writeSafetensors, type TensorReader } from "../../src/formats/index.ts";
import { nodeFiles, openSafetensors } from "../../src/formats/node.ts";
import { saveTokenizer } from "../../src/tokenizer/node.ts";
import { createByteTokenizer } from "./byte-tokenizer.ts";

/** Writes the released checkpoint of a model, experts one by one, with a tokenizer of single bytes. */
export async function writeRandomFolder(folder: string, model: ModelConfig, seed = 1): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const tensors = [...releasedTensors(blueprint(model))]
    .filter(({ role }) => role !== "duplicate")
    .map((tensor) => ({
      name: tensor.name,
      dtype: tensor.dtype,
      shape: tensor.shape,
      chunks: () => [randomBytes(tensor, model, seed)],
    }));
  await writeSafetensors(nodeFiles, join(folder, "model.safetensors"), tensors);
  writeFileSync(join(folder, "config.json"), hfConfigText(model, { bos: 0, eos: 1 }));
  await saveTokenizer(createByteTokenizer(), folder);
}

/** Norms around 1, matrices that keep the size of what they multiply, biases of both signs. */
function randomBytes({ name, dtype, shape }: ReleasedTensor, model: ModelConfig, seed: number): Uint8Array {
  const rng = new Rng(seed, name);
  const count = shape.reduce((product, n) => product * n, 1);
  const below = (n: number): number => Math.floor(rng.uniform() * n);
  const value = (): number => {
    const uniform = 2 * rng.uniform() - 1;
    if (name.endsWith("bias")) return 0.2 * uniform;
    return shape.length === 1 ? 1 + 0.3 * uniform : uniform * 2 * Math.sqrt(3 / shape.at(-1)!);
  };
  const many = <T>(make: () => T): T[] => Array.from({ length: count }, make);
  const scale = (): number => ((0.5 + rng.uniform()) / 448) * Math.sqrt(12 / (128 * shape.at(-1)!));
  switch (dtype) {
    case "F32":
      return bytesOf(Float32Array.from(many(name.includes("scale") ? scale : value)));
    case "BF16":
      return bytesOf(Uint16Array.from(many(() => toBf16Bits(value()))));
    case "F16":
      return bytesOf(Uint16Array.from(many(() => toF16Bits(value()))));
    case "F8_E4M3":
      return Uint8Array.from(many(() => below(2) * 128 + below(127)));
    case "F8_E8M0":
      return Uint8Array.from(many(() => 118 + below(8)));
    case "I8":
      return Uint8Array.from(many(() => below(256)));
    case "I64":
      return bytesOf(BigInt64Array.from(many(() => BigInt(below(model.nRoutedExperts)))));
    default:
      return dtype satisfies never;
  }
}

function bytesOf({ buffer }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer);
}

/** The values of every tensor of a folder but scales, one after the other, by the definitions of the types. */
export async function plainValues(folder: string): Promise<Map<string, Float64Array>> {
  const reader = await openSafetensors(folder);
  const values = new Map<string, Float64Array>();
  for (const name of reader.tensors.keys()) {
    if (!/(_scale_inv|\.weight_scale|\.scale)$/.test(name)) values.set(name, await valuesOf(reader, name));
  }
  await reader.close();
  return values;
}

async function valuesOf(reader: TensorReader, name: string): Promise<Float64Array> {
  const { shape } = reader.tensors.get(name)!;
  const dtype = reader.tensors.get(name)!.dtype as ReleasedTensor["dtype"];
  const bytes = (await reader.read(name)).slice();
  const [rows = 1, columns = 1] = shape;
  switch (dtype) {
    case "F32":
      return Float64Array.from(new Float32Array(bytes.buffer));
    case "BF16":
      return Float64Array.from(new Uint16Array(bytes.buffer), fromBf16Bits);
    case "F16":
      return Float64Array.from(new Uint16Array(bytes.buffer), fromF16Bits);
    case "I64":
      return Float64Array.from(new BigInt64Array(bytes.buffer), Number);
    case "F8_E4M3": {
      const scales = await scalesOf(reader, name);
      return Float64Array.from(bytes, (byte, i) => {
        const [row, column] = [Math.floor(i / columns), i % columns];
        const scale = scales[Math.floor(row / 128) * Math.ceil(columns / 128) + Math.floor(column / 128)]!;
        return Math.fround(fromE4m3Bits(byte) * scale);
      });
    }
    case "I8": {
      const scales = await scalesOf(reader, name);
      if (reader.tensors.has(`${name}_scale`)) {
        return Float64Array.from(new Int8Array(bytes.buffer), (byte, i) =>
          Math.fround(byte * scales[Math.floor(i / columns)]!),
        );
      }
      return Float64Array.from({ length: 2 * rows * columns }, (_, i) => {
        const byte = bytes[Math.floor(i / 2)]!;
        return E2M1_VALUES[i % 2 === 0 ? byte % 16 : Math.floor(byte / 16)]! * scales[Math.floor(i / 32)]!;
      });
    }
    case "F8_E8M0":
      throw new Error(`${name} holds scales`);
    default:
      return dtype satisfies never;
  }
}

async function scalesOf(reader: TensorReader, weight: string): Promise<Float64Array> {
  const names = [`${weight}_scale_inv`, `${weight}_scale`, weight.replace(/\.weight$/, ".scale")];
  const name = names.find((found) => reader.tensors.has(found))!;
  const bytes = (await reader.read(name)).slice();
  const isF32 = reader.tensors.get(name)!.dtype === "F32";
  return isF32 ? Float64Array.from(new Float32Array(bytes.buffer)) : Float64Array.from(bytes, fromE8m0Bits);
}
