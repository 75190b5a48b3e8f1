/**
 * The memory of one rank, tensor by tensor: a line for each parameter's weight, gradient, master copy and moments and
 * for each activation that a layer keeps. The lines sum to the evaluator's total, which counts by buckets.
 */

import { activationTensors, type ActivationTensor } from "./activations.ts";
import { expertDataParallel, fullRecomputeShare, numMicroBatches, type Layout } from "./layout.ts";
import { partsOf, type Stage } from "./partition.ts";
import type { LayerKind, PlanParameter } from "./shape.ts";
import { backWithTie, TIED_COPY } from "./states.ts";
import { MEMORY_PARTS, type MemoryParts, type TrainingEvaluator } from "./training.ts";

export interface LedgerLine {
  /** `layers.3.attn.wq_a`, or `layers.3.act.q`. */
  readonly name: string;
  readonly part: keyof MemoryParts;
  readonly bytes: number;
  /** How the bytes come about, in numbers. */
  readonly derivation: string;
}

/** Lines of one pipeline rank; the fullest one if none is given. Lines of no bytes are left out. */
export function memoryLedger(evaluator: TrainingEvaluator, layout: Layout, index?: number): LedgerLine[] {
  const stage = evaluator.stages(layout)[index ?? evaluator.evaluate(layout).fullestStage]!;
  const { shape } = evaluator.job;
  const parts = partsOf(shape, layout, stage.index, numMicroBatches(layout));
  const readActivation = activationReader(evaluator, layout, stage);
  const lines = parts.flatMap(({ chunk, inFlight }) => [
    ...(chunk.first ? shape.front.flatMap((parameter) => stateLines(evaluator, layout, parameter, "")) : []),
    ...chunk.layers.flatMap(({ name, kind }) => [
      ...shape.kinds[kind]!.parameters.flatMap((parameter) => stateLines(evaluator, layout, parameter, `${name}.`)),
      ...activationLines(layout, shape.kinds[kind]!, name, inFlight, readActivation),
    ]),
    ...(chunk.last ? backParameters(evaluator, layout).flatMap((p) => stateLines(evaluator, layout, p, "")) : []),
  ]);
  return [...lines, ...otherLines(evaluator, layout, stage)].filter(({ bytes }) => bytes > 0);
}

function backParameters({ job }: TrainingEvaluator, { pp }: Layout): readonly PlanParameter[] {
  return backWithTie(job.shape).filter(({ name }) => name !== TIED_COPY || pp > 1);
}

/** Ranks among which a parameter is cut. */
function cutOf({ expert, tensor }: PlanParameter, { tp, ep, etp }: Layout): number {
  if (expert) return ep * (tensor ? etp : 1);
  return tensor ? tp : 1;
}

function stateLines(
  { job }: TrainingEvaluator,
  layout: Layout,
  parameter: PlanParameter,
  prefix: string,
): LedgerLine[] {
  const { recipe, frozenBytes = recipe.weightBytes } = job;
  const cut = cutOf(parameter, layout);
  const ranks = parameter.expert ? expertDataParallel(layout) : layout.dp * layout.cp;
  const line = (part: keyof MemoryParts, bytesEach: number, fromZero: number): LedgerLine => {
    const shards = layout.zero >= fromZero ? ranks : 1;
    return {
      name: prefix + parameter.name,
      part,
      bytes: (bytesEach * parameter.elements) / cut / shards,
      derivation: `${parameter.elements} elements × ${bytesEach} B ÷ ${cut} ranks ÷ ${shards} shards`,
    };
  };
  const neverSharded = 4;
  if (parameter.kind === "buffer") return [line("weights", 4, neverSharded)];
  if (parameter.kind === "frozen") return [line("weights", frozenBytes, 3)];
  return [
    line("weights", recipe.weightBytes, 3),
    line("gradients", recipe.gradBytes, 2),
    line("master", recipe.masterBytes, 1),
    line("moments", recipe.momentBytes + recipe.secondMomentBytes, 1),
  ];
}

type ReadActivation = (kind: LayerKind, tensor: ActivationTensor) => number;

/** Bytes of each tensor of each kind for one micro-batch, read once. */
function activationReader(evaluator: TrainingEvaluator, layout: Layout, stage: Stage): ReadActivation {
  const nameOf = (kind: LayerKind, tensor: ActivationTensor): string => `${kind.name}.act.${tensor.name}`;
  const names = evaluator.job.shape.kinds.flatMap((kind) => activationTensors(kind).map((t) => nameOf(kind, t)));
  const values = evaluator.read(layout, stage, names);
  const byName = new Map(names.map((name, i) => [name, values[i]!]));
  return (kind, tensor) => byName.get(nameOf(kind, tensor))!;
}

function activationLines(
  { recompute }: Layout,
  kind: LayerKind,
  layer: string,
  inFlight: number,
  read: ReadActivation,
): LedgerLine[] {
  return activationTensors(kind).map((tensor) => {
    const kept = keptShare(tensor, recompute);
    const bytes = read(kind, tensor);
    return {
      name: `${layer}.act.${tensor.name}`,
      part: "activations",
      bytes: bytes * kept * inFlight,
      derivation: `${bytes} B × ${kept} kept × ${inFlight} micro-batches in flight`,
    };
  });
}

/** Share of the layers that keep a tensor. */
function keptShare({ keep }: ActivationTensor, recompute: Layout["recompute"]): number {
  const whole = 1 - fullRecomputeShare(recompute);
  if (keep === "input") return 1;
  return keep === "cheap" && recompute === "selective" ? 0 : whole;
}

/** What no layer owns: gathered weights, recomputation, logits, and activations at both ends. */
function otherLines(evaluator: TrainingEvaluator, layout: Layout, stage: Stage): LedgerLine[] {
  const named = ["gathered", "recompute", "logits"] as const;
  const values = evaluator.read(layout, stage, [...named.map((part) => `memory.${part}`), "tokens", "tokens.sequence"]);
  const [tokens, sequence] = values.slice(-2) as [number, number];
  const { recipe, shape } = evaluator.job;
  return [
    ...named.map((part, i): LedgerLine => ({ name: part, part, bytes: values[i]!, derivation: `memory.${part}` })),
    {
      name: "embed.act.token_ids",
      part: "activations",
      bytes: stage.frontLive * 8 * tokens,
      derivation: `${tokens} tokens × 8 B × ${stage.frontLive} micro-batches in flight`,
    },
    {
      name: "head.act.inputs",
      part: "activations",
      bytes: stage.backLive * 2 * recipe.activationBytes * sequence * shape.dim,
      derivation: `2 × ${sequence} tokens × ${shape.dim} × ${recipe.activationBytes} B × ${stage.backLive} micro-batches in flight`,
    },
  ];
}

/** Bytes of a ledger by part. */
export function ledgerParts(lines: readonly LedgerLine[]): MemoryParts {
  const sumOf = (part: keyof MemoryParts): number =>
    lines.filter((line) => line.part === part).reduce((sum, { bytes }) => sum + bytes, 0);
  return Object.fromEntries(MEMORY_PARTS.map((part) => [part, sumOf(part)])) as unknown as MemoryParts;
}
