/**
 * Weights, gradients, master copies and moments on one rank. Dense and expert parameters are two buckets: dense ones
 * are cut by TP and sharded over DP·CP, experts by EP and ETP and over the ranks that hold the same experts.
 *
 * **Source:** Megatron-Core parallel folding and distributed optimizer; Rajbhandari et al. 2020 (ZeRO).
 */

import type { FormulaRow, InputRow } from "./formula.ts";
import type { ModelShape, PlanParameter } from "./shape.ts";

/** Something that holds parameters: a kind of layer, the front (embedding) or the back (final norm, head). */
export interface Holder {
  readonly name: string;
  readonly parameters: readonly PlanParameter[];
}

/** Kinds of the shape, then front and back. */
export function holders(shape: ModelShape): Holder[] {
  return [...shape.kinds, { name: "front", parameters: shape.front }, { name: "back", parameters: backWithTie(shape) }];
}

/** With a tied head the last stage holds a copy of the embedding; on a single stage the copy costs nothing. */
export function backWithTie({ front, back, tied }: ModelShape): readonly PlanParameter[] {
  const embedding = front.find(({ name }) => name === "embed");
  return tied && embedding !== undefined ? [...back, { ...embedding, name: TIED_COPY }] : back;
}

/** Name of the copy of a tied embedding that the last of several stages holds. */
export const TIED_COPY = "embed (copy)";

/** The parts of a holder that are cut differently; an input of the sheet each. */
const PARTS = [
  { suffix: "whole", expert: false, tensor: false, cut: "", meaning: "dense parameters that each rank holds whole" },
  { suffix: "cut", expert: false, tensor: true, cut: " / tp", meaning: "dense parameters cut by tensor parallelism" },
  { suffix: "expert_whole", expert: true, tensor: false, cut: " / ep", meaning: "expert parameters cut by EP alone" },
  {
    suffix: "expert_cut",
    expert: true,
    tensor: true,
    cut: " / (ep * etp)",
    meaning: "expert parameters cut by EP and ETP",
  },
] as const;

/** Trained parameters, and the frozen base below adapters. */
const TRAINING = [
  { prefix: "", kind: "trainable", said: "" },
  { prefix: "frozen_", kind: "frozen", said: "frozen " },
] as const;

type Training = (typeof TRAINING)[number];

interface ParameterInput extends InputRow {
  readonly value: number;
}

/** Elements of each part of each holder; parts without elements are left out. */
export function parameterInputs(shape: ModelShape): ParameterInput[] {
  const all = holders(shape);
  const parts = all.flatMap((holder) => [
    ...TRAINING.flatMap((training) =>
      PARTS.map((part) => ({
        name: `${holder.name}.${training.prefix}${part.suffix}`,
        unit: "elements",
        meaning: `${training.said}${part.meaning}, of one ${holder.name}`,
        source: "blueprint",
        value: partElements(holder, training, part),
      })),
    ).filter(({ value }) => value > 0),
    {
      name: `${holder.name}.buffers`,
      unit: "elements",
      meaning: `buffers of one ${holder.name}`,
      source: "blueprint",
      value: sum(holder.parameters.filter(({ kind }) => kind === "buffer")),
    },
  ]);
  const copies = all.flatMap(({ parameters }) => parameters).filter(({ name }) => name === TIED_COPY);
  return [...parts, ...copies.map(({ elements }) => ({ ...TIED_INPUT, value: elements }))];
}

function partElements({ parameters }: Holder, { kind }: Training, part: (typeof PARTS)[number]): number {
  return sum(
    parameters.filter(
      (parameter) =>
        parameter.kind === kind &&
        parameter.expert === part.expert &&
        parameter.tensor === part.tensor &&
        parameter.name !== TIED_COPY,
    ),
  );
}

function sum(parameters: readonly PlanParameter[]): number {
  return parameters.reduce((total, { elements }) => total + elements, 0);
}

/** The tied embedding's second place. */
const TIED_INPUT: InputRow = {
  name: "back.copy",
  unit: "elements",
  meaning: "embedding that a tied head repeats on the last of several stages",
  source: "blueprint",
};

const ZERO = "Rajbhandari et al. 2020";
const FOLDING = "Megatron-Core parallel folding";

/** Local elements of each holder and of the stage, then the bytes of the states. */
export function stateRows(shape: ModelShape): FormulaRow[] {
  const hasFrozen = [...shape.kinds.flatMap(({ parameters }) => parameters), ...shape.front].some(
    ({ kind }) => kind === "frozen",
  );
  return [
    ...TRAINING.flatMap((training) => holders(shape).flatMap((holder) => localRows(holder, training))),
    ...TRAINING.flatMap((training) => stageRows(shape, training)),
    {
      name: "buffers",
      formula: overHolders(shape, "buffers"),
      unit: "elements",
      meaning: "buffers on the rank",
    },
    {
      name: "ranks.dense",
      formula: "dp * cp",
      unit: "ranks",
      meaning: "ranks that hold the same dense parameters",
      source: FOLDING,
    },
    {
      name: "ranks.expert",
      formula: "tp * cp * dp / (ep * etp)",
      unit: "ranks",
      meaning: "ranks that hold the same experts (EDP)",
      source: FOLDING,
    },
    ...shardRows(),
    ...memoryRows(shape, hasFrozen),
  ];
}

function localRows(holder: Holder, training: Training): FormulaRow[] {
  return [false, true].map((expert) => {
    const parts = PARTS.filter((part) => part.expert === expert && partElements(holder, training, part) > 0);
    const terms = parts.map(({ suffix, cut }) => `${holder.name}.${training.prefix}${suffix}${cut}`);
    const isCopy = ({ name, kind }: PlanParameter): boolean => name === TIED_COPY && kind === training.kind;
    if (!expert && holder.parameters.some(isCopy)) terms.push(`if(ge(pp, 2), ${TIED_INPUT.name}, 0) / tp`);
    return {
      name: `${holder.name}.${training.prefix}${expert ? "expert_params" : "params"}`,
      formula: terms.join(" + ") || "0",
      unit: "elements",
      meaning: `${training.said}${expert ? "expert" : "dense"} parameters of one ${holder.name} on a rank`,
      source: FOLDING,
    };
  });
}

function stageRows(shape: ModelShape, { prefix, said }: Training): FormulaRow[] {
  return ["params", "expert_params"].map((bucket) => ({
    name: `${prefix}${bucket}`,
    formula: overHolders(shape, `${prefix}${bucket}`),
    unit: "elements",
    meaning: `${said}${bucket === "params" ? "dense" : "expert"} parameters that the rank holds`,
  }));
}

/** Σ over holders of how many the stage holds, times a number of each. */
function overHolders(shape: ModelShape, of: string): string {
  return holders(shape)
    .map(({ name }) => `${name}.held * ${name}.${of}`)
    .join(" + ");
}

function shardRows(): FormulaRow[] {
  const stages = [
    ["weights", 3],
    ["gradients", 2],
    ["optimizer", 1],
  ] as const;
  return stages.flatMap(([state, zero]) =>
    ["dense", "expert"].map((bucket) => ({
      name: `shards.${state}.${bucket}`,
      formula: `if(ge(zero, ${zero}), ranks.${bucket}, 1)`,
      unit: "",
      meaning: `shards of the ${bucket} ${state}: ZeRO cuts them from stage ${zero} on`,
      source: ZERO,
    })),
  );
}

function memoryRows(shape: ModelShape, hasFrozen: boolean): FormulaRow[] {
  const sharded = (state: string, prefix = ""): string =>
    `(${prefix}params / shards.${state}.dense + ${prefix}expert_params / shards.${state}.expert)`;
  const frozen = hasFrozen ? ` + frozen_bytes * ${sharded("weights", "frozen_")}` : "";
  const bytes = { unit: "bytes", source: ZERO };
  return [
    {
      ...bytes,
      name: "memory.weights",
      formula: `weight_bytes * ${sharded("weights")}${frozen} + 4 * buffers`,
      meaning: "weights on the rank, buffers in float32",
    },
    {
      ...bytes,
      name: "memory.gradients",
      formula: `grad_bytes * ${sharded("gradients")}`,
      meaning: "gradients on the rank",
    },
    {
      ...bytes,
      name: "memory.master",
      formula: `master_bytes * ${sharded("optimizer")}`,
      meaning: "float32 master weights on the rank",
    },
    {
      ...bytes,
      name: "memory.moments",
      formula: `(moment_bytes + second_moment_bytes) * ${sharded("optimizer")}`,
      meaning: "optimizer moments on the rank",
    },
    {
      unit: "bytes",
      name: "memory.gathered",
      formula: `if(ge(zero, 3), 2 * ${largestLayer(shape, hasFrozen)}, 0)`,
      meaning: "ZeRO-3: whole weights of the layer at work and of the next one, fetched ahead",
      source: "PyTorch FSDP2, one layer of prefetch",
    },
  ];
}

function largestLayer({ kinds }: ModelShape, hasFrozen: boolean): string {
  const bytesOf = (kind: string): string =>
    `weight_bytes * (${kind}.params + ${kind}.expert_params)` +
    (hasFrozen ? ` + frozen_bytes * (${kind}.frozen_params + ${kind}.frozen_expert_params)` : "");
  return kinds
    .map(({ name }) => `if(${name}.held, ${bytesOf(name)}, 0)`)
    .reduce((largest, one) => `max(${largest}, ${one})`);
}
