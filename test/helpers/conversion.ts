/** Conversions in a folder of their own, and how two checkpoints are compared. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resolveConfig, type ModelConfig } from "../../src/config/index.ts";
import { planConversion, type ConvertOptions, type ConvertPort } from "../../src/convert/node.ts";
import { writeSafetensors } from "../../src/formats/index.ts";
import { nodeFiles, openSafetensors } from "../../src/formats/node.ts";

export function modelOf(preset: string, settings: Record<string, unknown> = {}): ModelConfig {
  return resolveConfig({ preset, model: settings }).model;
}

/** Sizes at which a V4 is small and has every kind of its layers. */
export const SMALL_V4 = {
  vocabSize: 64,
  dim: 64,
  nLayers: 4,
  moeInterDim: 64,
  nHeads: 4,
  nRoutedExperts: 4,
  nActivatedExperts: 2,
  qLoraRank: 32,
  oLoraRank: 16,
  oGroups: 2,
  headDim: 32,
  qkRopeHeadDim: 16,
  indexNHeads: 2,
  indexHeadDim: 32,
  compressRatios: [0, 0, 4, 128, 0],
};

export interface Converted {
  readonly notices: readonly string[];
  readonly digests: ReadonlyMap<string, string>;
  readonly progress: number[];
}

export class ConversionFolder implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "fathom-convert-"));

  path(...names: string[]): string {
    return join(this.folder, ...names);
  }

  /** @param to - name in this folder. */
  async convert(
    from: string,
    to: string,
    dtype: string,
    more: Partial<ConvertOptions> = {},
    port?: ConvertPort,
  ): Promise<Converted> {
    const conversion = await planConversion({ source: from, target: this.path(to), dtype, ...more }, port);
    try {
      const progress: number[] = [];
      const digests = await conversion.run(({ doneBytes }) => progress.push(doneBytes));
      return { notices: conversion.plan.notices, digests, progress };
    } finally {
      await conversion.close();
    }
  }

  /** The error in which something ends, without this folder and long numbers. */
  async failure(promise: Promise<unknown>): Promise<string> {
    const error = await promise.then(
      () => undefined,
      (reason: unknown) => reason as Error,
    );
    return `${error?.name}: ${error?.message}`.replaceAll(this.folder, "").replaceAll(/\d{9,}/g, "N");
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true });
  }
}

/** Names of tensors that only one of the two has, or that differ in a bit. */
export function differences(got: ReadonlyMap<string, Float64Array>, due: ReadonlyMap<string, Float64Array>): string[] {
  const bits = (values?: Float64Array): Buffer => Buffer.from(values?.buffer ?? new ArrayBuffer(1));
  return [...new Set([...got.keys(), ...due.keys()])].filter(
    (name) => !bits(got.get(name)).equals(bits(due.get(name))),
  );
}

/** A tensor as it stands in a safetensors file. */
export interface RawTensor {
  readonly dtype: "F32" | "BF16" | "F16" | "F64" | "F8_E4M3" | "F8_E8M0" | "I8";
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** All tensors of a `.safetensors` file, or of a folder with one. */
export async function rawTensors(path: string): Promise<Map<string, RawTensor>> {
  const reader = await openSafetensors(path);
  const tensors = new Map<string, RawTensor>();
  for (const [name, { dtype, shape }] of reader.tensors) {
    tensors.set(name, { dtype: dtype as RawTensor["dtype"], shape, bytes: (await reader.read(name)).slice() });
  }
  await reader.close();
  return tensors;
}

/** @param path - of a `.safetensors` file, or of a folder that gets one. */
export async function writeRaw(path: string, tensors: ReadonlyMap<string, RawTensor>): Promise<void> {
  const sources = [...tensors].map(([name, { bytes, ...tensor }]) => ({ name, ...tensor, chunks: () => [bytes] }));
  const file = path.endsWith(".safetensors") ? path : join(path, "model.safetensors");
  await writeSafetensors(nodeFiles, file, sources);
}
