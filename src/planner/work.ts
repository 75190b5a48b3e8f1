/**
 * FLOPs per token. A matrix product takes two per active element; attention's core two per head, width and position of
 * the context. Causal attention sees half the sequence on average.
 *
 * **Source:** the accounting of Megatron-LM and NeMo Automodel (model FLOPs, causal attention halved); DeepSeek-V2
 * report 2.1 for absorbed decoding; Hu et al. 2021 for LoRA.
 */

import { compileSheet, type FormulaRow, type InputRow, type Quantity, type Sheet } from "./formula.ts";
import { ConfigError } from "../core/errors.ts";
import { dimInputs, kindDims } from "./activations.ts";
import {
  activeElements,
  layerCounts,
  withoutMtp,
  type AttentionShape,
  type LayerKind,
  type ModelShape,
} from "./shape.ts";

const UNIT = "FLOP per token";

/** Active elements of each kind of layer, and of the back, as inputs with their values. */
export function workInputs(shape: ModelShape): (InputRow & { readonly value: number })[] {
  const element = { unit: "elements", source: "blueprint" };
  return [
    ...shape.kinds.flatMap((kind) => {
      const experts = kind.parameters.filter(({ expert }) => expert);
      const dense = kind.parameters.filter(({ expert }) => !expert);
      const trained = kind.parameters.filter(({ kind: state }) => state === "trainable");
      return [
        {
          ...element,
          name: `${kind.name}.active_dense`,
          meaning: `dense parameters of a ${kind.name} layer`,
          value: activeElements(dense),
        },
        {
          ...element,
          name: `${kind.name}.active_experts`,
          meaning: "parameters of a token's routed experts",
          value: activeElements(experts),
        },
        {
          ...element,
          name: `${kind.name}.active_trained`,
          meaning: "active parameters that take a gradient",
          value: activeElements(trained),
        },
      ];
    }),
    {
      ...element,
      name: "back.active",
      meaning: "final norm and head",
      value: activeElements(shape.back) + (shape.tied ? shape.vocabSize * shape.dim : 0),
    },
    {
      ...element,
      name: "back.active_trained",
      meaning: "those of them that take a gradient",
      value: activeElements(shape.back.filter(({ kind }) => kind === "trainable")) + tiedTrained(shape),
    },
  ];
}

function tiedTrained({ tied, front, vocabSize, dim }: ModelShape): number {
  return tied && front.some(({ name, kind }) => name === "embed" && kind === "trainable") ? vocabSize * dim : 0;
}

/** Per kind: the work of one token in one layer. */
export function workRows({ kinds }: ModelShape): FormulaRow[] {
  return kinds.flatMap((kind) => {
    const k = kind.name;
    return [
      { name: `${k}.flops.dense`, formula: `2 * ${k}.active_dense`, unit: UNIT, meaning: "forward, dense products" },
      {
        name: `${k}.flops.experts`,
        formula: `2 * ${k}.active_experts`,
        unit: UNIT,
        meaning: "forward, routed experts",
      },
      {
        name: `${k}.flops.core`,
        formula: `2 * ${coreWidth(kind)} * context`,
        unit: UNIT,
        meaning: "forward, scores and weighted values of attention",
      },
      ...indexRows(kind),
      {
        name: `${k}.flops.weight`,
        formula: `2 * ${k}.active_trained`,
        unit: UNIT,
        meaning: "backward, gradients of the trained weights",
      },
      {
        name: `${k}.flops.forward`,
        formula: `${k}.flops.dense + ${k}.flops.experts + ${k}.flops.core${hasIndexer(kind) ? ` + ${k}.flops.index` : ""}`,
        unit: UNIT,
        meaning: `forward of a ${k} layer`,
      },
      {
        name: `${k}.flops.cheap`,
        formula: cheapFlops(kind),
        unit: UNIT,
        meaning: "what selective recomputation computes again",
      },
    ];
  });
}

/** Whether an indexer scores the positions, as in DeepSeek-V3.2. */
export function hasIndexer({ attention }: LayerKind): boolean {
  return attention.kind === "mla" && attention.indexer !== undefined;
}

/**
 * The indexer scores every position; gradients reach it through the chosen ones alone. Attention itself is trained as
 * masked dense attention.
 *
 * **Source:** DeepSeek-V3.2 report 2.1: lightning indexer, sparse training stage, masked attention for short sequences.
 */
function indexRows(kind: LayerKind): FormulaRow[] {
  if (!hasIndexer(kind)) return [];
  const k = kind.name;
  const width = `${k}.index_heads * ${k}.index_dim`;
  const isTrained = kind.parameters.some(({ name, kind: state }) => state === "trainable" && /\.indexer\./.test(name));
  return [
    {
      name: `${k}.keys`,
      formula: `if(ge(${k}.index_topk, 2 * context), context, ${k}.index_topk - pow(${k}.index_topk, 2) / (4 * context))`,
      unit: "positions",
      meaning: "that the indexer leaves to a query on average: all of the first index_topk, then index_topk",
    },
    {
      name: `${k}.flops.index`,
      formula: `2 * ${width} * context`,
      unit: UNIT,
      meaning: "forward, scores of the indexer over all positions",
    },
    {
      name: `${k}.flops.index_backward`,
      formula: isTrained ? `4 * ${width} * ${k}.keys` : "0",
      unit: UNIT,
      meaning: "backward of those scores, at the chosen positions; nothing where the indexer is frozen",
    },
  ];
}

function coreWidth({ name, attention }: LayerKind): string {
  return attention.kind === "mla"
    ? `${name}.heads * (${name}.nope + ${name}.rope + ${name}.v_dim)`
    : `${name}.heads * 2 * ${name}.head_dim`;
}

/** MLA: the up-projections; unfused attention: its core; elsewhere only norms and products, counted as traffic. */
function cheapFlops({ name: k, attention }: LayerKind): string {
  if (attention.kind === "unfused") return `${k}.flops.core`;
  if (attention.kind !== "mla") return "0";
  const queryWidth = attention.qLoraRank === 0 ? "d" : `${k}.q_rank`;
  return `2 * ${k}.heads * (${queryWidth} * (${k}.nope + ${k}.rope) + ${k}.kv_rank * (${k}.nope + ${k}.v_dim))`;
}

/** The work of one token in the whole model; `NAME.layers` are inputs. */
export function totalWorkRows({ kinds, nMtpLayers }: ModelShape): FormulaRow[] {
  const main = kinds.filter(({ name }) => name !== "mtp");
  const over = (of: string, members = main): string =>
    members.map(({ name }) => `${name}.layers * ${name}.flops.${of}`).join(" + ");
  const indexed = kinds.filter(hasIndexer);
  const mtp = nMtpLayers === 0 ? "0" : "mtp.layers * (mtp.flops.forward + 2 * d * vocab)";
  return [
    {
      name: "flops.linear",
      formula: `${over("dense")} + ${over("experts")} + 2 * back.active`,
      unit: UNIT,
      meaning: "forward, all matrix products of the main model",
    },
    { name: "flops.core", formula: over("core"), unit: UNIT, meaning: "forward, attention's core" },
    ...(indexed.length === 0 ? [] : totalIndexRows(indexed)),
    { name: "flops.mtp", formula: mtp, unit: UNIT, meaning: "forward of the MTP layers, each with the head" },
    {
      name: "flops.forward",
      formula: `flops.linear + flops.core + flops.mtp${main.some(hasIndexer) ? " + flops.index" : ""}`,
      unit: UNIT,
      meaning: "forward in all",
    },
    {
      name: "flops.weight",
      formula:
        `${over("weight")} + 2 * back.active_trained` +
        (nMtpLayers === 0 ? "" : " + mtp.layers * (mtp.flops.weight + 2 * d * vocab * ge(back.active_trained, 1))"),
      unit: UNIT,
      meaning: "backward, gradients of the trained weights",
    },
    {
      name: "flops.training",
      formula: `2 * flops.forward + flops.weight + flops.core + flops.mtp_core${indexed.length === 0 ? "" : " + flops.index_more"}`,
      unit: UNIT,
      meaning: "forward, gradients of the activations (the core's are twice its forward) and of the weights",
      source: "Megatron-LM; 3 × forward when everything is trained",
    },
    {
      name: "flops.recompute",
      formula: kinds
        .map(({ name }) => {
          const again = `recompute.full * ${name}.flops.forward + (1 - recompute.full) * recompute.selective * ${name}.flops.cheap`;
          return `${name}.layers * (${again})`;
        })
        .join(" + "),
      unit: UNIT,
      meaning: "forward work that backward repeats",
    },
  ];
}

/** The indexer's scores in all, and what their backward takes beyond their forward. */
function totalIndexRows(kinds: readonly LayerKind[]): FormulaRow[] {
  const over = (members: readonly LayerKind[], work: (k: string) => string): string =>
    members.map(({ name }) => `${name}.layers * ${work(name)}`).join(" + ");
  const main = kinds.filter(({ name }) => name !== "mtp");
  return [
    {
      name: "flops.index",
      formula: over(main, (k) => `${k}.flops.index`),
      unit: UNIT,
      meaning: "forward, scores of the indexers in the main layers",
    },
    {
      name: "flops.index_more",
      formula: over(kinds, (k) => `(${k}.flops.index_backward - ${k}.flops.index)`),
      unit: UNIT,
      meaning: "backward of all indexers less their forward, since they are trained at the chosen positions",
    },
  ];
}

export interface WorkSettings {
  readonly seqLen: number;
  /** Whether the MTP layers are trained and counted; true. */
  readonly mtp?: boolean;
  /** Whether attention is counted as causal, half the sequence; true, and always so with an indexer. */
  readonly causal?: boolean;
  /** Share of the layers recomputed whole, and whether the rest is recomputed selectively; 0 and false. */
  readonly fullRecompute?: number;
  readonly selectiveRecompute?: boolean;
}

/** FLOPs per token. */
export interface Work {
  readonly forward: number;
  /** Forward and backward, without recomputation: what MFU counts. */
  readonly training: number;
  readonly recompute: number;
  readonly mtp: number;
}

/** Where the work of a token comes from: `flops.training` and what it is made of. */
export function explainWork(shape: ModelShape, settings: WorkSettings, name = "flops.training"): Quantity {
  const { sheet, registers } = runWork(shape, settings);
  return sheet.explain(name, registers);
}

/**
 * The work of one token in training or prefill.
 *
 * @throws ConfigError for an indexer without causal attention.
 * @example
 * const shape = modelShape(resolveConfig("deepseek-v3").model);
 * flopsPerToken(shape, { seqLen: 4096, mtp: false }).training; // 250.46e9
 */
export function flopsPerToken(shape: ModelShape, settings: WorkSettings): Work {
  const { sheet, registers } = runWork(shape, settings);
  const read = (name: string): number => registers[sheet.slot(name)]!;
  return {
    forward: read("flops.forward"),
    training: read("flops.training"),
    recompute: read("flops.recompute"),
    mtp: read("flops.mtp"),
  };
}

function runWork(model: ModelShape, settings: WorkSettings): { sheet: Sheet; registers: Float64Array } {
  checkCausal(model, settings);
  const shape = settings.mtp === false ? withoutMtp(model) : model;
  const values = { ...modelValues(shape), ...settingValues(settings) };
  const inputs = [
    ...dimInputs(shape),
    ...workInputs(shape),
    ...layerInputs(shape),
    ...WORK_SETTING_INPUTS.map(([name, meaning]) => ({ name, unit: "", meaning })),
  ];
  const sheet = compileSheet([inputs], [...workRows(shape), ...mtpCoreRow(shape), ...totalWorkRows(shape)]);
  const registers = sheet.createRegisters();
  for (const [name, value] of Object.entries(values)) registers[sheet.slot(name)] = value;
  sheet.run(registers);
  return { sheet, registers };
}

/** The keys that an indexer leaves to a query are averaged over causal queries. */
function checkCausal({ kinds }: ModelShape, { causal = true }: WorkSettings): void {
  if (causal || !kinds.some(hasIndexer)) return;
  throw new ConfigError("causal", "must be true for attention with an indexer", causal);
}

/** Attention's core in the MTP layers, which backward takes twice. */
export function mtpCoreRow({ nMtpLayers }: ModelShape): FormulaRow[] {
  const formula = nMtpLayers === 0 ? "0" : "mtp.layers * mtp.flops.core";
  return [{ name: "flops.mtp_core", formula, unit: UNIT, meaning: "forward, attention's core in the MTP layers" }];
}

const WORK_SETTING_INPUTS = [
  ["d", "width of the residual stream"],
  ["vocab", "rows of the embedding and of the head"],
  ["context", "positions that a token attends to on average"],
  ["recompute.full", "share of the layers that is recomputed whole"],
  ["recompute.selective", "1 when the others recompute what is cheap"],
] as const;

export function layerInputs({ kinds }: ModelShape): InputRow[] {
  return kinds.map(({ name }) => ({ name: `${name}.layers`, unit: "layers", meaning: `${name} layers of the model` }));
}

/** What is the same for every layout: dims, active elements, layers. */
export function modelValues(shape: ModelShape): Record<string, number> {
  const counts = layerCounts(shape);
  return {
    d: shape.dim,
    vocab: shape.vocabSize,
    ...Object.fromEntries(
      shape.kinds.flatMap((kind, i) => [
        [`${kind.name}.layers`, counts[i]!],
        ...kindDims(kind).map(([name, value]) => [`${kind.name}.${name}`, value]),
      ]),
    ),
    ...Object.fromEntries(workInputs(shape).map(({ name, value }) => [name, value])),
  };
}

function settingValues(settings: WorkSettings): Record<string, number> {
  const { seqLen, causal = true, fullRecompute = 0, selectiveRecompute = false } = settings;
  return {
    context: causal ? seqLen / 2 : seqLen,
    "recompute.full": fullRecompute,
    "recompute.selective": Number(selectiveRecompute),
  };
}

/**
 * Forward work of one decoded token at a context. `absorbed` MLA scores against the latent (r_kv + r + r_kv per head
 * and position); naive MLA and other attentions score against whole keys and values. An indexer scores the whole
 * context and leaves attention its `topK`.
 */
export function decodeFlopsPerToken(shape: ModelShape, context: number, absorbed = true): number {
  const linear = flopsPerToken(shape, { seqLen: 0, mtp: false }).forward;
  const { core, index, topK } = positionFlops(shape, absorbed);
  return linear + core * Math.min(context, topK) + index * context;
}

/** FLOPs of all main layers for one query and one position. */
export interface PositionFlops {
  /** Attention's core, and the scores of the indexers; 0 without them. */
  readonly core: number;
  readonly index: number;
  /** Positions that attention sees at most; infinite without indexers. */
  readonly topK: number;
}

export function positionFlops(shape: ModelShape, absorbed = true): PositionFlops {
  const counts = layerCounts(shape);
  const main = shape.kinds.filter(({ name }) => name !== "mtp");
  const over = (work: (attention: AttentionShape) => number): number =>
    main.reduce((sum, { attention }, i) => sum + counts[i]! * work(attention), 0);
  const indexers = main.map(({ attention }) => indexerOf(attention)).filter((indexer) => indexer !== undefined);
  return {
    core: over((attention) => decodeCore(attention, absorbed)),
    index: over((attention) => 2 * (indexerOf(attention)?.nHeads ?? 0) * (indexerOf(attention)?.headDim ?? 0)),
    topK: indexers.length === 0 ? Infinity : Math.max(...indexers.map(({ topK }) => topK)),
  };
}

function indexerOf(attention: AttentionShape) {
  return attention.kind === "mla" ? attention.indexer : undefined;
}

/** FLOPs of one head-wise pass over one cached position, all heads. */
function decodeCore(attention: AttentionShape, absorbed: boolean): number {
  if (attention.kind !== "mla") return 2 * attention.nHeads * 2 * attention.headDim;
  const { nHeads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = attention;
  const perPosition = absorbed ? 2 * kvLoraRank + qkRopeHeadDim : qkNopeHeadDim + qkRopeHeadDim + vHeadDim;
  return 2 * nHeads * perPosition;
}
