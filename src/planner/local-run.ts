/**
 * A GGUF model on one machine: attention, dense layers, shared experts and the KV cache in the GPU's memory, the routed
 * experts in RAM, as llama.cpp places them with `--cpu-moe`. Layers of experts that still fit move to the GPU, as with
 * `--n-cpu-moe`. The speed is a bound: what one token reads, over the bandwidths, every peak reached.
 *
 * **Source:** llama.cpp v0.5.0 (`-ot`, `--cpu-moe`, `--n-cpu-moe`; input embedding on the CPU; f16 cache of the latent).
 */

import type { Blueprint } from "../blueprint/index.ts";
import { ASSUMED } from "./assumptions.ts";
import { compileSheet, formulaRow, type FormulaRow, type Quantity } from "./formula.ts";
import { GGUF_MIXES, mixModel, quantise, type GgufMix, type QuantisedTensor } from "./gguf-mix.ts";
import { ggufTensors, type GgufTensor } from "./gguf-tensors.ts";
import { kvBytesPerToken } from "./kv-cache.ts";
import { QUANT_BLOCKS, type QuantType } from "./quant-types.ts";
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
  /** Share of each memory that may be used; `ASSUMED.memoryMargin`. */
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
  /** Layers whose experts stay in RAM. */
  readonly cpuMoeLayers: number;
  /** The value of --n-cpu-moe, which counts from the first layer, those without experts too; 0 for none. */
  readonly nCpuMoe: number;
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
  return GGUF_MIXES.map((mix) => planTensors({ model, tensors, mix, machine, settings }).plan);
}

/** One mix on this machine. */
export function planLocal(
  model: Blueprint,
  mix: GgufMix,
  machine: LocalMachine,
  settings: LocalSettings = {},
): LocalPlan {
  return planTensors({ model, tensors: ggufTensors(model), mix, machine, settings }).plan;
}

/** Numbers that `explainLocal` knows, whatever the mix. */
export const LOCAL_NAMES: readonly string[] = [
  ...["gpu.weights", "gpu.total", "gpu.read", "ram.weights", "ram.read", "kv.cache", "workspace"],
  ...["gpu.limit", "ram.limit", "cpu_moe.layers", "cpu_moe.flag", "file.bytes", "token.seconds", "bound.rate"],
];

/**
 * Where a number of one mix comes from, down to the elements of each type.
 * @param name - one of LOCAL_NAMES.
 */
export function explainLocal(
  name: string,
  model: Blueprint,
  mix: GgufMix,
  machine: LocalMachine,
  settings: LocalSettings = {},
): Quantity {
  return planTensors({ model, tensors: ggufTensors(model), mix, machine, settings }).placed.explain(name);
}

interface LocalJob {
  readonly model: Blueprint;
  readonly tensors: readonly GgufTensor[];
  readonly mix: GgufMix;
  readonly machine: LocalMachine;
  readonly settings: LocalSettings;
}

function planTensors(job: LocalJob): { plan: LocalPlan; placed: Placed } {
  const { model, tensors, mix, machine, settings } = job;
  const { imatrix = true, memoryShare = ASSUMED.memoryMargin } = settings;
  const quantised = quantise(tensors, mixModel(model.model), mix, imatrix);
  const resident = quantised.filter(({ role }) => role === "attention" || role === "other");
  const experts = layersOf(quantised.filter(({ role }) => role === "expert"));
  const layers = { dense: model.model.nDenseLayers, all: experts.length, moved: 0 };
  const room = machine.vramBytes * memoryShare - placeTensors(job, quantised, resident, layers).read("gpu.total");
  const moved = experts.slice(experts.length - countFitting(experts, room)).flat();
  const perLayer = Math.max(1, experts[0]?.length ?? 1);
  const onGpu = [...resident, ...moved];
  const placed = placeTensors(job, quantised, onGpu, { ...layers, moved: moved.length / perLayer });
  const { read } = placed;
  const plan: LocalPlan = {
    mix,
    fileBytes: read("file.bytes"),
    gpu: {
      weightBytes: read("gpu.weights"),
      kvBytes: read("kv.cache"),
      workspaceBytes: read("workspace"),
      totalBytes: read("gpu.total"),
    },
    ram: { totalBytes: read("ram.weights") },
    cpuMoeLayers: read("cpu_moe.layers"),
    nCpuMoe: read("cpu_moe.flag"),
    moeLayers: experts.length,
    fits: room >= 0 && read("ram.weights") <= machine.ramBytes * memoryShare,
    gpuReadBytes: read("gpu.read"),
    ramReadBytes: read("ram.read"),
    boundTokensPerSec: read("bound.rate"),
  };
  return { plan, placed };
}

/** An evaluated sheet. */
interface Placed {
  readonly read: (name: string) => number;
  readonly explain: (name: string) => Quantity;
}

function placeTensors(
  job: LocalJob,
  all: readonly QuantisedTensor[],
  onGpu: readonly QuantisedTensor[],
  layers: { readonly dense: number; readonly all: number; readonly moved: number },
): Placed {
  const gpu = elementsByType("gpu", onGpu);
  const isOnGpu = new Set(onGpu);
  const ram = elementsByType(
    "ram",
    all.filter((tensor) => !isOnGpu.has(tensor)),
  );
  const inputs: Record<string, Input> = {
    ...machineInputs(job),
    ...gpu.inputs,
    ...ram.inputs,
    "dense.layers": [layers.dense, "layers", "without routed experts, the first"],
    "moe.layers": [layers.all, "layers", "with routed experts"],
    "moved.layers": [layers.moved, "layers", "of experts, from the last, that still fit below gpu.limit"],
  };
  const names = Object.entries(inputs).map(([name, [, unit, meaning]]) => ({ name, unit, meaning }));
  const sheet = compileSheet([names], [...gpu.rows, ...ram.rows, ...TOTALS]);
  const registers = sheet.createRegisters();
  for (const [name, [value]] of Object.entries(inputs)) registers[sheet.slot(name)] = value;
  sheet.run(registers);
  return { read: (name) => registers[sheet.slot(name)]!, explain: (name) => sheet.explain(name, registers) };
}

const TOTALS: readonly FormulaRow[] = [
  formulaRow("kv.cache", "kv.token * context", "bytes", "cached latents, or keys and values"),
  formulaRow(
    "workspace",
    "driver + passed * 4 * (vocab + 4 * d)",
    "bytes",
    "the driver's own and the float32 of one pass",
  ),
  formulaRow("gpu.total", "gpu.weights + kv.cache + workspace", "bytes", "in the GPU's memory"),
  formulaRow("gpu.limit", "gpu.memory * share.memory", "bytes", "of the GPU that may be used"),
  formulaRow("ram.limit", "ram.memory * share.memory", "bytes", "of the RAM that may be used"),
  formulaRow("cpu_moe.layers", "moe.layers - moved.layers", "layers", "whose experts stay in RAM"),
  formulaRow(
    "cpu_moe.flag",
    "if(ge(0, cpu_moe.layers), 0, dense.layers + cpu_moe.layers)",
    "layers",
    "the value of --n-cpu-moe, which counts from the first layer, those without experts too",
  ),
  formulaRow("file.bytes", "gpu.weights + ram.weights", "bytes", "all tensors of the file"),
  formulaRow("gpu.read", "gpu.chosen + kv.cache", "bytes", "read from the GPU's memory for one token"),
  formulaRow("ram.read", "ram.chosen", "bytes", "read from RAM for one token"),
  formulaRow(
    "token.seconds",
    "gpu.read / gpu.bandwidth + ram.read / ram.bandwidth",
    "s",
    "one token, every peak reached",
  ),
  formulaRow("bound.rate", "1 / token.seconds", "tokens per second", "no engine decodes one sequence faster"),
];

/** value, unit, meaning */
type Input = readonly [number, string, string];

function machineInputs({ model, machine, settings }: LocalJob): Record<string, Input> {
  const { vocabSize, dim } = model.model;
  return {
    "kv.token": [kvBytesPerToken(modelShape(model.model)), "bytes", "cached for one token"],
    context: [settings.context ?? 4096, "tokens", "of the cache"],
    driver: [DRIVER_BYTES, "bytes", "that the GPU's driver takes"],
    passed: [UBATCH, "tokens", "of one pass over a prompt"],
    vocab: [vocabSize, "tokens", "of the vocabulary"],
    d: [dim, "elements", "width of the residual stream"],
    "gpu.memory": [machine.vramBytes, "bytes", "of the GPU"],
    "ram.memory": [machine.ramBytes, "bytes", "of the machine"],
    "share.memory": [settings.memoryShare ?? ASSUMED.memoryMargin, "share", "of each memory that may be used"],
    "gpu.bandwidth": [machine.vramBytesPerSec, "bytes per second", "of the GPU's memory"],
    "ram.bandwidth": [machine.ramBytesPerSec, "bytes per second", "of the RAM"],
  };
}

/** Elements in one memory by type, held and read for one token, with the rows for their bytes. */
function elementsByType(place: string, tensors: readonly QuantisedTensor[]) {
  const types = [...new Set(tensors.map(({ type }) => type))];
  const count = (type: QuantType, share: (tensor: QuantisedTensor) => number): number =>
    tensors.reduce((sum, tensor) => sum + (tensor.type === type ? tensor.elements * share(tensor) : 0), 0);
  const inputs = types.flatMap((type): [string, Input][] => [
    [`${place}.${type}`, [count(type, () => 1), "elements", `kept in ${type}`]],
    [`${place}.${type}.chosen`, [count(type, chosenShare), "elements", `in ${type} read for one token`]],
  ]);
  const bytes = (suffix: string): string =>
    types.map((type) => `${place}.${type}${suffix} ${perElement(type)}`).join(" + ") || "0";
  const rows = [
    formulaRow(`${place}.weights`, bytes(""), "bytes", "weights there, bytes of a block over its elements"),
    formulaRow(`${place}.chosen`, bytes(".chosen"), "bytes", "weights read for one token: of experts the chosen ones"),
  ];
  return { inputs: Object.fromEntries(inputs), rows };
}

/** Of the embedding one row is read. */
const chosenShare = ({ role, activeShare }: QuantisedTensor): number => (role === "embedding" ? 0 : activeShare);

function perElement(type: QuantType): string {
  const { elements, bytes } = QUANT_BLOCKS[type];
  return `/ ${elements} * ${bytes}`;
}

function bytesOf(tensors: readonly QuantisedTensor[]): number {
  return tensors.reduce((sum, { bytes }) => sum + bytes, 0);
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
