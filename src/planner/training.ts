/**
 * The training planner's evaluator: one sheet of formulas for a model on a cluster, run for each layout. The same
 * sheet explains every number.
 */

import { activationRows, dimInputs } from "./activations.ts";
import { devicesPerNode, type Cluster } from "./cluster.ts";
import { layerCommunicationRows, linkRows, stageCommunicationRows } from "./communication.ts";
import { ConfigError } from "../core/errors.ts";
import { ASSUMED } from "./assumptions.ts";
import type { Efficiency } from "./efficiency.ts";
import { compileSheet, type FormulaRow, type InputRow, type Quantity, type Sheet } from "./formula.ts";
import { peakOf } from "./hardware.ts";
import { fullRecomputeShare, isTwoWay, numMicroBatches, type Layout } from "./layout.ts";
import { leadingStages, stagesOf, type Stage } from "./partition.ts";
import type { PrecisionRecipe } from "./precision.ts";
import { bubbleOf } from "./schedules.ts";
import type { ModelShape } from "./shape.ts";
import { findRowName } from "./row-names.ts";
import { parameterInputs, stateRows } from "./states.ts";
import { layerTimeRows, runRows, stageInputNames, stageMemoryRows, stageTimeRows } from "./step-time.ts";
import { layerInputs, modelValues, mtpCoreRow, totalWorkRows, workInputs, workRows } from "./work.ts";

/** What is trained, on what, how. The MTP layers are trained if the shape has them. */
export interface TrainingJob {
  readonly shape: ModelShape;
  readonly recipe: PrecisionRecipe;
  readonly cluster: Cluster;
  readonly efficiency: Efficiency;
  /** Share of a device's memory that may be planned; the rest is for the context, buffers and fragmentation. */
  readonly margin: number;
  /** Bytes of a frozen weight below adapters. */
  readonly frozenBytes?: number;
  /** Parts in which logits and loss are computed; 1 keeps them whole. */
  readonly lossChunks?: number;
}

/** Bytes on the fullest rank by what they are. */
export interface MemoryParts {
  readonly weights: number;
  readonly gradients: number;
  readonly master: number;
  readonly moments: number;
  readonly gathered: number;
  readonly activations: number;
  readonly recompute: number;
  readonly logits: number;
}

/** What a layout costs: flat numbers. */
export interface Evaluation {
  readonly layout: Layout;
  readonly memoryBytes: number;
  readonly fits: boolean;
  /** Pipeline rank that holds the most, and the one that is slowest. */
  readonly fullestStage: number;
  readonly slowestStage: number;
  readonly stepSec: number;
  readonly workSec: number;
  readonly bubbleSec: number;
  readonly dataParallelSec: number;
  readonly optimizerSec: number;
}

export interface TrainingEvaluator {
  readonly job: TrainingJob;
  /** Bytes that one device may hold: its memory times the margin. */
  readonly limitBytes: number;
  /** @param layout - legal; see `checkLayout`. */
  readonly evaluate: (layout: Layout) => Evaluation;
  /** Bytes by part on the fullest rank. */
  readonly memoryParts: (layout: Layout) => MemoryParts;
  /** A number of the fullest rank (`memory.…`) or the slowest (all others), with its derivation. */
  readonly explain: (layout: Layout, name: string) => Quantity;
  /** Numbers of one stage by name. */
  readonly read: (layout: Layout, stage: Stage, names: readonly string[]) => number[];
  readonly stages: (layout: Layout) => readonly Stage[];
  /** The same with other coefficients: nothing is compiled again. */
  readonly withEfficiency: (efficiency: Efficiency) => TrainingEvaluator;
  /** Names that `explain` knows. */
  readonly names: readonly string[];
}

const DEGREE_INPUTS = [
  ["tp", "tensor-parallel ranks"],
  ["pp", "pipeline-parallel ranks"],
  ["pp.hops", "chunks of a pipeline rank that a micro-batch passes and is sent on from"],
  ["cp", "context-parallel ranks"],
  ["ep", "expert-parallel ranks"],
  ["etp", "tensor-parallel ranks of an expert"],
  ["dp", "data-parallel replicas"],
  ["sp", "ranks that split the sequence in norms and residuals: TP with sequence parallelism, else 1"],
  ["micro_batch", "sequences of a micro-batch"],
  ["micros", "micro-batches of a step in one pipeline: global batch / (micro-batch · DP)"],
  ["seq", "tokens of a sequence"],
  ["context", "positions that a token attends to on average: half the sequence"],
  ["two_way", "1 when micro-batches of both directions overlap (DualPipe, DualPipeV), else 0"],
  ["bubble.steps", "factor of the schedule's bubble"],
  ["bubble.backward", "B in the schedule's bubble"],
  ["bubble.weight", "W in the schedule's bubble"],
] as const;

const SAVING_INPUTS = [
  ["zero", "ZeRO stage"],
  ["recompute.full", "share of the layers that is recomputed whole"],
  ["recompute.selective", "1 when the others recompute what is cheap"],
] as const;

const MACHINE_INPUTS = [
  ["d", "width of the residual stream"],
  ["vocab", "rows of the embedding and of the head"],
  ["weight_bytes", "bytes of a weight"],
  ["grad_bytes", "bytes of a gradient"],
  ["master_bytes", "bytes of a master weight"],
  ["moment_bytes", "bytes of a first moment"],
  ["second_moment_bytes", "bytes of a second moment"],
  ["activation_bytes", "bytes of an activation"],
  ["dispatch_bytes", "bytes of an element sent to an expert"],
  ["frozen_bytes", "bytes of a frozen weight"],
  ["loss_chunks", "parts in which logits and loss are computed"],
  ["node", "devices that share a fast link"],
  ["link.intra", "fast link of a device, one way, at the share that collectives reach"],
  ["link.inter", "network of a device, one way, at the share that collectives reach"],
  ["latency", "seconds that a collective call waits"],
  ["peak", "dense peak of the recipe's format"],
  ["peak.bf16", "dense peak in bf16"],
  ["compute_share", "share of the peak that products reach"],
  ["hidden_share", "share of communication that the engine hides behind computation where the schedule lets it"],
  ["memory_rate", "memory's peak rate"],
  ["memory_share", "share of it that kernels reach"],
  ["device.memory", "bytes of a device"],
  ["margin", "share of them that may be planned"],
] as const;

/** @throws ConfigError when the device lacks a figure that the plan needs. */
export function createTrainingEvaluator(job: TrainingJob): TrainingEvaluator {
  const sheet = compileSheet(inputRows(job.shape), formulaRows(job));
  return evaluatorOn({ sheet, runResults: sheet.runFor(RESULTS), stages: createStageCache(job.shape) }, job);
}

/** What a layout costs whatever the time that it takes. */
export interface LayoutCosts {
  /** Bytes on the fullest rank. */
  readonly memoryBytes: number;
  /** Forward, backward and recomputation of one token on all ranks together. */
  readonly flopsPerToken: number;
}

/**
 * Memory and work by their own rows of the sheet, for who asks for no time.
 *
 * @param layout - legal; see `checkLayout`.
 * @throws ConfigError when the device lacks a figure that the plan needs.
 */
export function layoutCosts(job: TrainingJob, layout: Layout): LayoutCosts {
  const { shape } = job;
  const sheet = compileSheet(inputRows(shape), costRows(job));
  const registers = sheet.createRegisters();
  const set = (name: string, value: number): void => {
    registers[sheet.slot(name)] = value;
  };
  const get = (name: string): number => registers[sheet.slot(name)]!;
  for (const [name, value] of Object.entries(fixedValues(job))) set(name, value);
  const values = layoutValues(layout);
  [...DEGREE_INPUTS, ...SAVING_INPUTS].forEach(([name], i) => set(name, values[i]!));
  sheet.run(registers);
  const ranks = createStageCache(shape)(layout).leading.map((stage) => {
    stageInputNames(shape).forEach(({ name }, i) => set(name, stage.values[i]!));
    sheet.run(registers, STAGE_GROUP);
    return get("memory.total");
  });
  return { memoryBytes: Math.max(...ranks), flopsPerToken: get("flops.training") + get("flops.recompute") };
}

/** What evaluators of one job share, whatever their coefficients. */
interface Compiled {
  readonly sheet: Sheet;
  readonly runResults: Sheet["run"];
  readonly stages: (layout: Layout) => Stages;
}

function evaluatorOn(compiled: Compiled, job: TrainingJob): TrainingEvaluator {
  const { sheet, runResults, stages } = compiled;
  const { shape } = job;
  const registers = sheet.createRegisters();
  for (const [name, value] of Object.entries(fixedValues(job))) registers[sheet.slot(name)] = value;
  sheet.run(registers);
  const layoutSlots = [...DEGREE_INPUTS, ...SAVING_INPUTS].map(([name]) => sheet.slot(name));
  const stageSlots = stageInputNames(shape).map(({ name }) => sheet.slot(name));
  const limitBytes = job.cluster.device.memoryBytes * job.margin;
  const setStage = (values: Float64Array): void => {
    for (let i = 0; i < values.length; i++) registers[stageSlots[i]!] = values[i]!;
  };
  // Layouts that differ only in what they save follow each other in a search: then only that is computed again.
  const setLayout = (layout: Layout): Stages["leading"] => {
    let group = SAVING_GROUP;
    layoutValues(layout).forEach((value, i) => {
      if (i < DEGREE_INPUTS.length && registers[layoutSlots[i]!] !== value) group = DEGREE_GROUP;
      registers[layoutSlots[i]!] = value;
    });
    runResults(registers, group);
    return stages(layout).leading;
  };
  const slots = resultSlots(sheet);
  const evaluate = (layout: Layout): Evaluation => {
    let fullest = { bytes: -1, index: 0 };
    let slowest = { stepSec: -1, index: 0, workSec: 0, bubbleSec: 0, dataParallelSec: 0, optimizerSec: 0 };
    for (const { stage, values } of setLayout(layout)) {
      setStage(values);
      runResults(registers, STAGE_GROUP);
      const bytes = registers[slots.memory]!;
      if (bytes > fullest.bytes) fullest = { bytes, index: stage.index };
      const stepSec = registers[slots.step]!;
      if (stepSec > slowest.stepSec) {
        slowest = {
          stepSec,
          index: stage.index,
          workSec: registers[slots.work]!,
          bubbleSec: registers[slots.bubble]!,
          dataParallelSec: registers[slots.dataParallel]!,
          optimizerSec: registers[slots.optimizer]!,
        };
      }
    }
    const { index: slowestStage, ...times } = slowest;
    return {
      layout,
      memoryBytes: fullest.bytes,
      fits: fullest.bytes <= limitBytes,
      fullestStage: fullest.index,
      slowestStage,
      ...times,
    };
  };
  const read = (layout: Layout, stage: Stage, names: readonly string[]): number[] => {
    setLayout(layout);
    setStage(stageValues(stage));
    sheet.run(registers, DEGREE_GROUP);
    return names.map((name) => registers[sheet.slot(name)]!);
  };
  return {
    job,
    limitBytes,
    evaluate,
    read,
    stages: (layout) => stages(layout).all,
    withEfficiency: (efficiency) => evaluatorOn(compiled, { ...job, efficiency }),
    memoryParts: (layout) => {
      const stage = stages(layout).all[evaluate(layout).fullestStage]!;
      const values = read(
        layout,
        stage,
        MEMORY_PARTS.map((part) => `memory.${part}`),
      );
      return Object.fromEntries(MEMORY_PARTS.map((part, i) => [part, values[i]!])) as unknown as MemoryParts;
    },
    explain: (layout, name) => {
      const found = findRow(sheet, name);
      const { fullestStage, slowestStage } = evaluate(layout);
      const stage = stages(layout).all[found.startsWith("memory") ? fullestStage : slowestStage]!;
      read(layout, stage, []);
      return withShare(sheet.explain(found, registers), job.efficiency);
    },
    names: sheet.rows.map(({ name }) => name),
  };
}

/** Opens the share of the peak, which is no row of the sheet: fitted on a run, or assumed of two parts. */
function withShare(quantity: Quantity, efficiency: Efficiency): Quantity {
  const inputs = quantity.inputs.map((input) => withShare(input, efficiency));
  if (quantity.name !== "compute_share") return { ...quantity, inputs };
  const { basis, assumed = {} } = efficiency;
  const parts = Object.entries(assumed);
  const formula = parts.length === 0 ? {} : { formula: parts.map(([name]) => name).join(" * ") };
  return {
    ...{ ...quantity, ...formula, meaning: `${quantity.meaning}: ${basis}` },
    inputs: parts.map(([name, { value, meaning }]) => ({ name, value, meaning, unit: "", inputs: [] })),
  };
}

export const MEMORY_PARTS = [
  "weights",
  "gradients",
  "master",
  "moments",
  "gathered",
  "activations",
  "recompute",
  "logits",
] as const satisfies readonly (keyof MemoryParts)[];

function findRow(sheet: Sheet, name: string): string {
  if (sheet.has(name)) return name;
  const names = [...sheet.rows.map((row) => row.name), "compute_share", "hidden_share"];
  const found = findRowName(names, name);
  if (found !== undefined) return found;
  const near = names.filter((known) => known.startsWith(name)).slice(0, 8);
  const hint = near.length > 0 ? near : ["memory.total", "memory.activations", "time.step", "flops.training"];
  throw new ConfigError("--why", "must be a number of the plan", name, `for example ${hint.join(", ")}`);
}

const RESULTS = [
  "memory.total",
  "time.step",
  "time.work",
  "time.bubble",
  "time.data_parallel",
  "time.optimizer",
] as const;

function resultSlots(sheet: Sheet) {
  const [memory, step, work, bubble, dataParallel, optimizer] = RESULTS.map(sheet.slot);
  return {
    memory: memory!,
    step: step!,
    work: work!,
    bubble: bubble!,
    dataParallel: dataParallel!,
    optimizer: optimizer!,
  };
}

/** Groups of inputs by how often they change. */
const DEGREE_GROUP = 1;
const SAVING_GROUP = 2;
const STAGE_GROUP = 3;

function inputRows(shape: ModelShape): InputRow[][] {
  const row = ([name, meaning]: readonly [string, string]): InputRow => ({ name, unit: "", meaning });
  const model = [...dimInputs(shape), ...workInputs(shape), ...layerInputs(shape), ...parameterInputs(shape)];
  const machine = [...MACHINE_INPUTS.map(row), ...model];
  return [machine, DEGREE_INPUTS.map(row), SAVING_INPUTS.map(row), stageInputNames(shape)];
}

/** Memory and work, which follow from no rate of a device. */
function costRows({ shape, recipe }: TrainingJob): FormulaRow[] {
  return [
    ...activationRows(shape, recipe),
    ...stateRows(shape),
    ...stageMemoryRows(shape),
    ...workRows(shape),
    ...mtpCoreRow(shape),
    ...totalWorkRows(shape),
  ];
}

function formulaRows(job: TrainingJob): FormulaRow[] {
  const { shape } = job;
  return [
    ...costRows(job),
    ...linkRows(),
    ...layerCommunicationRows(shape),
    ...stageCommunicationRows(),
    ...layerTimeRows(shape),
    ...stageTimeRows(shape),
    ...runRows(),
  ];
}

function fixedValues(job: TrainingJob): Record<string, number> {
  const { shape, recipe, cluster, efficiency, frozenBytes = recipe.weightBytes, lossChunks = 1 } = job;
  const { device } = cluster;
  return {
    ...modelValues(shape),
    ...Object.fromEntries(parameterInputs(shape).map(({ name, value }) => [name, value])),
    weight_bytes: recipe.weightBytes,
    grad_bytes: recipe.gradBytes,
    master_bytes: recipe.masterBytes,
    moment_bytes: recipe.momentBytes,
    second_moment_bytes: recipe.secondMomentBytes,
    activation_bytes: recipe.activationBytes,
    dispatch_bytes: recipe.dispatchBytes,
    frozen_bytes: frozenBytes,
    loss_chunks: lossChunks,
    node: devicesPerNode(cluster),
    ...linkRates(cluster),
    latency: ASSUMED.latencySec,
    peak: peakOf(device, recipe.compute),
    "peak.bf16": peakOf(device, recipe.compute === "fp32" ? "fp32" : "bf16"),
    compute_share: efficiency.computeShare,
    hidden_share: efficiency.hiddenShare,
    memory_rate: device.memoryBytesPerSec,
    memory_share: efficiency.memoryShare ?? ASSUMED.memoryShare,
    "device.memory": device.memoryBytes,
    margin: job.margin,
  };
}

/** A single device has no links; a rate that is not needed is 1. */
function linkRates(cluster: Cluster): Record<string, number> {
  const { device, count } = cluster;
  const node = devicesPerNode(cluster);
  const rate = (needed: boolean, bytesPerSec: number | undefined, what: string): number => {
    if (!needed) return 1;
    if (bytesPerSec !== undefined) return bytesPerSec * ASSUMED.linkShare;
    throw new ConfigError("--gpus", `${device.title} must have a known ${what} rate`, undefined, "use fewer devices");
  };
  return {
    "link.intra": rate(node > 1, device.link?.bytesPerSec, "link"),
    "link.inter": rate(count > node, device.networkBytesPerSec, "network"),
  };
}

/** DualPipeV bends the pipeline: a micro-batch passes each rank twice. DualPipe has a chunk for each direction. */
function hopsOf({ schedule, vp }: Layout): number {
  return schedule === "dualpipev" ? 2 : vp;
}

/** In the order of DEGREE_INPUTS and SAVING_INPUTS. */
function layoutValues(l: Layout): number[] {
  const bubble = bubbleOf(l);
  return [
    l.tp,
    l.pp,
    hopsOf(l),
    l.cp,
    l.ep,
    l.etp,
    l.dp,
    l.sequenceParallel ? l.tp : 1,
    l.microBatchSize,
    numMicroBatches(l),
    l.seqLen,
    l.seqLen / 2,
    isTwoWay(l) ? 1 : 0,
    bubble.steps,
    bubble.backward,
    bubble.weight,
    l.zero,
    fullRecomputeShare(l.recompute),
    l.recompute === "selective" ? 1 : 0,
  ];
}

/** In the order of `stageInputNames`. */
function stageValues(stage: Stage): Float64Array {
  const kinds = stage.held.flatMap((held, kind) => [held, stage.worked[kind]!, stage.live[kind]!]);
  const { front, frontWorked, frontLive, back, backWorked, backLive } = stage;
  return Float64Array.from([...kinds, front, frontWorked, frontLive, back, backWorked, backLive]);
}

interface Stages {
  readonly all: readonly Stage[];
  /** Those that can be the fullest or the slowest, with their inputs of the sheet. */
  readonly leading: readonly { readonly stage: Stage; readonly values: Float64Array }[];
}

/** More micro-batches in flight than this change nothing, except for GPipe. */
function relevantMicros({ schedule, pp, vp }: Layout, micros: number): number {
  return schedule === "gpipe" ? micros : Math.min(micros, 2 * pp * vp + pp);
}

function createStageCache(shape: ModelShape): (layout: Layout) => Stages {
  const cache = new Map<string, Stages>();
  return (layout) => {
    const micros = relevantMicros(layout, numMicroBatches(layout));
    const key = `${layout.schedule}/${layout.pp}/${layout.vp}/${micros}`;
    const known = cache.get(key);
    if (known !== undefined) return known;
    const all = stagesOf(shape, layout, micros);
    const leading = leadingStages(all).map((stage) => ({ stage, values: stageValues(stage) }));
    const stages = { all, leading };
    cache.set(key, stages);
    return stages;
  };
}
