/**
 * A matrix as bytes with a tensor of scales beside it: fp8 in square blocks, or int8 with a scale for each row. Each of the
 * two is made in a pass of its own over the rows, so that no whole matrix is held.
 */

import { encodeFp8Rows, encodeInt8Rows, FP8_BLOCK, toE8m0BitsUp, type ScaleFormat } from "../core/index.ts";
import { SCALE_SUFFIXES, tensorBytes } from "../formats/index.ts";
import { viewBytes } from "./elements.ts";
import { rowSlabs, type OutputTensor } from "./output-tensor.ts";
import type { WeightRows } from "./weight-rows.ts";

/** A tensor that is due in a file. */
interface DueTensor {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Bytes and scales of some rows. */
interface Encoded {
  readonly weight: Uint8Array;
  readonly scales: Float32Array;
}

/** `X.weight` [rows, columns] as I8 and `X.weight_scale` [rows, 1] as F32. */
export function int8Tensors({ name, shape }: DueTensor, rows: () => WeightRows): OutputTensor[] {
  const encode = (values: Float32Array, columns: number): Encoded => {
    const { weight, scales } = encodeInt8Rows(values, columns);
    return { weight: viewBytes(weight), scales };
  };
  const part = (of: (rows: Encoded) => Uint8Array) => () => parts(name, rows(), { step: 1, encode, of });
  const scale = { name: name + SCALE_SUFFIXES.I8, shape: [shape[0]!, 1] };
  return [
    { name, shape, dtype: "I8", bytes: tensorBytes("I8", shape)!, chunks: part(({ weight }) => weight) },
    { ...scale, dtype: "F32", bytes: 4 * shape[0]!, chunks: part(({ scales }) => viewBytes(scales)) },
  ];
}

/** The e4m3 bytes of a matrix, or its scales where the type that is due is another. */
export function fp8Tensor(
  { name, shape, dtype }: DueTensor & { readonly dtype: string },
  rows: () => WeightRows,
  format: ScaleFormat,
): OutputTensor {
  const encode = (values: Float32Array, columns: number): Encoded => encodeFp8Rows(values, columns, format);
  const of = ({ weight, scales }: Encoded): Uint8Array => {
    if (dtype === "F8_E4M3") return weight;
    return dtype === "F8_E8M0" ? Uint8Array.from(scales, toE8m0BitsUp) : viewBytes(scales);
  };
  const due = dtype as "F8_E4M3" | "F8_E8M0" | "F32";
  const chunks = (): AsyncIterable<Uint8Array> => parts(name, rows(), { step: FP8_BLOCK, encode, of });
  return { name, shape, dtype: due, bytes: tensorBytes(due, shape)!, chunks };
}

interface Part {
  /** Rows that are encoded together. */
  readonly step: number;
  readonly encode: (values: Float32Array, columns: number) => Encoded;
  readonly of: (rows: Encoded) => Uint8Array;
}

async function* parts(name: string, source: WeightRows, { step, encode, of }: Part): AsyncGenerator<Uint8Array> {
  for await (const values of rowSlabs(name, source, { step })) yield of(encode(values, source.columns));
}
