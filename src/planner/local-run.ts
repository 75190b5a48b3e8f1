/**
 * A GGUF model on one machine: attention, dense layers, shared experts and the KV cache in the GPU's memory, the routed
 * experts in RAM, as llama.cpp places them with `--cpu-moe`. Layers of experts that still fit move to the GPU, as with
 * `--n-cpu-moe`. The speed is a bound: what one token reads, over the bandwidths, every peak reached.
 *
 * **Source:** llama.cpp v0.5.0 (`-ot`, `--cpu-moe`, `--n-cpu-moe`; input embedding on the CPU; f16 cache of the latent).
 */

import type { Blueprint } from "../blueprint/index.ts";
import { GGUF_MIXES, mixModel, quantise, type GgufMix, type QuantisedTensor } from "./gguf-mix.ts";
import { ggufTensors, type GgufTensor } from "./gguf-tensors.ts";
import { kvBytesPerToken } from "./kv-cache.ts";
import { modelShape } from "./shape.ts";

export interface LocalMachine {
  readonly vramBytes: number;
  readonly ramBytes: number;
  readonly vramBytesPerSec: number;
  readonly ramBytesPerSec: number;
}

export interface LocalSettings {
  /** Positions of the cache; 4096. */
  readonly context?: number;
  /** Whether the file was made with an importance matrix; true, as published low-bit files are. */
  readonly imatrix?: boolean;
  /** Share of each memory that may be used; 0.85. */
  readonly memoryShare?: number;
}

export interface LocalPlan {
  readonly mix: GgufMix;
  /** All tensors of the file; its header with the vocabulary comes on top, some megabytes. */
  readonly fileBytes: number;
  readonly gpu: {
    readonly weightBytes: number;
    readonly kvBytes: number;
    readonly workspaceBytes: number;
    readonly totalBytes: number;
  };
  readonly ram: { readonly totalBytes: number };
  /** Layers whose experts stay in RAM: the value of --n-cpu-moe. */
  readonly cpuMoeLayers: number;
  /** Layers with experts. */
  readonly moeLayers: number;
  readonly fits: boolean;
  /** Read for one token from each memory. */
  readonly gpuReadBytes: number;
  readonly ramReadBytes: number;
  /** No engine decodes one sequence faster without speculation. */
  readonly boundTokensPerSec: number;
}

/** llama.cpp computes a prompt in passes of 512 tokens. */
const UBATCH = 512;
/** Context and kernels of the GPU's driver, as CUDA takes for itself. */
const DRIVER_BYTES = 512 * 2 ** 20;

/** Every mix of llama.cpp on this machine, in their order. */
export function planLocalMixes(model: Blueprint, machine: LocalMachine, settings: LocalSettings = {}): LocalPlan[] {
  const tensors = ggufTensors(model);
  return GGUF_MIXES.map((mix) => planTensors(model, tensors, mix, machine, settings));
}

/** One mix on this machine. */
export function planLocal(
  model: Blueprint,
  mix: GgufMix,
  machine: LocalMachine,
  settings: LocalSettings = {},
): LocalPlan {
  return planTensors(model, ggufTensors(model), mix, machine, settings);
}

function planTensors(
  { model, ...rest }: Blueprint,
  tensors: readonly GgufTensor[],
  mix: GgufMix,
  machine: LocalMachine,
  { context = 4096, imatrix = true, memoryShare = 0.85 }: LocalSettings,
): LocalPlan {
  const quantised = quantise(tensors, mixModel(model), mix, imatrix);
  const kvBytes = kvBytesPerToken(modelShape({ model, ...rest })) * context;
  const workspaceBytes = DRIVER_BYTES + UBATCH * 4 * (model.vocabSize + 4 * model.dim);
  const resident = quantised.filter(({ role }) => role === "attention" || role === "other");
  const experts = layersOf(quantised.filter(({ role }) => role === "expert"));
  const room = machine.vramBytes * memoryShare - bytesOf(resident) - kvBytes - workspaceBytes;
  const moved = experts.slice(experts.length - countFitting(experts, room)).flat();
  const gpuTensors = [...resident, ...moved];
  const ramTensors = quantised.filter((tensor) => !gpuTensors.includes(tensor));
  const weightBytes = bytesOf(gpuTensors);
  const gpuReadBytes = readBytes(gpuTensors) + kvBytes;
  const ramReadBytes = readBytes(ramTensors.filter(({ role }) => role !== "embedding"));
  const ramBytes = bytesOf(ramTensors);
  return {
    mix,
    fileBytes: bytesOf(quantised),
    gpu: { weightBytes, kvBytes, workspaceBytes, totalBytes: weightBytes + kvBytes + workspaceBytes },
    ram: { totalBytes: ramBytes },
    cpuMoeLayers: experts.length - moved.length / Math.max(1, experts[0]?.length ?? 1),
    moeLayers: experts.length,
    fits: room >= 0 && ramBytes <= machine.ramBytes * memoryShare,
    gpuReadBytes,
    ramReadBytes,
    boundTokensPerSec: 1 / (gpuReadBytes / machine.vramBytesPerSec + ramReadBytes / machine.ramBytesPerSec),
  };
}

function bytesOf(tensors: readonly QuantisedTensor[]): number {
  return tensors.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** What one token reads: of an expert stack only the chosen experts. */
function readBytes(tensors: readonly QuantisedTensor[]): number {
  return tensors.reduce((sum, { bytes, activeShare }) => sum + bytes * activeShare, 0);
}

/** The three stacks of each layer together, in the order of the layers. */
function layersOf(experts: readonly QuantisedTensor[]): QuantisedTensor[][] {
  const layers = new Map<number, QuantisedTensor[]>();
  for (const tensor of experts) layers.set(tensor.layer, [...(layers.get(tensor.layer) ?? []), tensor]);
  return [...layers.values()];
}

/** How many layers of experts, from the last one down, go into `room` bytes. */
function countFitting(layers: readonly (readonly QuantisedTensor[])[], room: number): number {
  let left = room;
  let count = 0;
  for (const layer of layers.toReversed()) {
    left -= bytesOf(layer);
    if (left < 0) break;
    count++;
  }
  return count;
}
