/**
 * Memory, prefill and decode of a served model on one kind of device: rooflines from bytes and FLOPs, with the share
 * of the peaks that engines reach. Attention is replicated over DP ranks of `tp` devices each; the routed experts are
 * dealt out over all devices. Every number is a row of one sheet, so that its derivation can be printed.
 *
 * **Source:** DeepSeek-V3 report 3.4 and open-infra-index day 6 (EP decoding, two overlapped micro-batches).
 */

import { ConfigError } from "../core/errors.ts";
import { ASSUMED } from "./assumptions.ts";
import { compileSheet, type FormulaRow, type InputRow, type Quantity, type Sheet } from "./formula.ts";
import { peakOf, type Device } from "./hardware.ts";
import { isLatentCache, kvBytesPerToken, type KvFormat } from "./kv-cache.ts";
import { layerCounts, type FfnShape, type LayerKind, type ModelShape, type PlanParameter } from "./shape.ts";
import { weightFormat } from "./weight-formats.ts";
import { decodeFlopsPerToken, flopsPerToken } from "./work.ts";

export interface InferenceSettings {
  /** Name of a weight format; fp8. */
  readonly weights?: string;
  /** Format of the cache, and whether MLA caches each head's keys and values; bf16 and false. */
  readonly kv?: KvFormat;
  readonly expandedKv?: boolean;
  /** Devices in all, and tensor-parallel ranks of the attention; 1 and 1. */
  readonly devices?: number;
  readonly tp?: number;
  /** Copies of experts that each rank holds beside its own share; 0. */
  readonly redundantExperts?: number;
  /** Sequences that decode at once on all devices, and positions that each has cached; 1 and 4096. */
  readonly batch?: number;
  readonly context?: number;
  /** Tokens of a prompt, of one prefill pass, and the share of a prompt that a prefix cache has; context, 8192, 0. */
  readonly prompt?: number;
  readonly chunk?: number;
  readonly cachedShare?: number;
  /** Tokens that MTP drafts per step, and how often a draft is right; 0 and as assumed. */
  readonly drafts?: number;
  readonly acceptance?: number;
  /** Whether communication hides behind two micro-batches; false. */
  readonly overlap?: boolean;
  /** Shares of the peaks that are reached; of products the device's measured one, else as assumed. */
  readonly bandwidthShare?: number;
  readonly matmulShare?: number;
  readonly linkShare?: number;
  /** Factors on the times; as assumed. */
  readonly decodeCorrection?: number;
  readonly prefillCorrection?: number;
}

/** Settings under which the times are lower bounds: every peak reached, nothing added. */
export const BOUND = {
  bandwidthShare: 1,
  matmulShare: 1,
  linkShare: 1,
  decodeCorrection: 1,
  prefillCorrection: 1,
} as const satisfies InferenceSettings;

export interface LedgerLine {
  readonly name: string;
  readonly bytes: number;
  readonly meaning: string;
}

export interface InferencePlan {
  /** Bytes on one device; the lines sum to `totalBytes`. */
  readonly memory: readonly LedgerLine[];
  readonly totalBytes: number;
  /** Cached bytes of one token on one device. */
  readonly kvTokenBytes: number;
  readonly decode: {
    readonly readBytes: number;
    readonly memorySeconds: number;
    readonly mathSeconds: number;
    readonly commSeconds: number;
    readonly stepSeconds: number;
    /** Seconds between two tokens of one sequence. */
    readonly tpotSeconds: number;
    /** Tokens per second of one device, and of all. */
    readonly tokensPerSecPerDevice: number;
    readonly tokensPerSec: number;
  };
  readonly prefill: {
    readonly ttftSeconds: number;
    readonly tokensPerSecPerDevice: number;
    readonly tokensPerSec: number;
  };
  /** Names that `explain` knows. */
  readonly names: readonly string[];
  /** Where a number comes from. @throws InternalError for a name that is not a row. */
  readonly explain: (name: string) => Quantity;
}

/** Experts that at least one of `tokens` tokens chooses, when all are equally likely: E·(1 − (1 − k/E)^tokens). */
export function expectedDistinctExperts(experts: number, activated: number, tokens: number): number {
  return experts === 0 ? 0 : experts * (1 - (1 - activated / experts) ** tokens);
}

/** Tokens that one step yields when each of `drafts` drafts is right with probability `acceptance`, the first wrong one ending it. */
export function expectedTokensPerStep(drafts: number, acceptance: number): number {
  let tokens = 1;
  for (let i = 1; i <= drafts; i++) tokens += acceptance ** i;
  return tokens;
}

const SECONDS = "seconds";
const BYTES = "bytes";

/** name, formula, unit, meaning */
type Short = readonly [string, string, string, string];

/** Engines compute at least the last token of a prompt, whatever the prefix cache has. */
const PROMPTS: readonly Short[] = [
  ["prefill.todo", "max(1, prompt * (1 - cached))", "tokens", "of a prompt that the prefix cache does not have"],
  ["chunk", "min(chunk.limit, prefill.todo)", "tokens", "of one prefill pass of a rank"],
];

const MEMORY: readonly Short[] = [
  ["weights.dense", "dense.elements * dense.bytes / tp", BYTES, "attention, dense FFNs and shared experts"],
  ["weights.wide", "wide.elements * 2", BYTES, "routers and norms, bf16, on every device"],
  ["weights.ends", "ends.elements * 2 / tp", BYTES, "embedding and head, bf16"],
  [
    "weights.experts",
    "moe.elements * moe.bytes * (1 / devices + moe.redundant / max(moe.experts, 1))",
    BYTES,
    "routed experts and their redundant copies",
  ],
  [
    "weights.mtp",
    "mtp.used * (mtp.dense * dense.bytes / tp + mtp.elements * moe.bytes / devices)",
    BYTES,
    "MTP layers",
  ],
  ["kv.cache", "kv.token * sequences * context", BYTES, "cached latents, or keys and values"],
  ["workspace.logits", "4 * sequences * mtp.width * vocab / tp", BYTES, "float32 logits of one step"],
  ["workspace.chunk", "2 * chunk * widest / tp", BYTES, "widest activations of one prefill pass"],
  ["workspace.other", "other.bytes", BYTES, "runtime, graphs, communication buffers"],
];

const TIMES: readonly Short[] = [
  ["memory.total", MEMORY.map(([name]) => name).join(" + "), BYTES, "on one device"],
  ["read.dense", "weights.dense + weights.wide + head.elements * 2 / tp", BYTES, "weights that every step reads"],
  [
    "read.experts",
    "moe.elements * moe.bytes / devices * moe.distinct / max(moe.experts, 1)",
    BYTES,
    "experts that the tokens of a step chose",
  ],
  [
    "read.drafts",
    "mtp.drafts * (mtp.dense * dense.bytes / tp + mtp.elements * moe.bytes / devices * moe.distinct / max(moe.experts, 1) + head.elements * 2 / tp)",
    BYTES,
    "MTP layers and head, once for each draft",
  ],
  ["read.bytes", "read.dense + read.experts + read.drafts + kv.cache", BYTES, "read from memory in one step"],
  ["decode.memory", "read.bytes / (device.bandwidth * share.bandwidth)", SECONDS, "reading weights and cache"],
  [
    "decode.math",
    "sequences * mtp.width / tp * (flops.linear / device.peak + flops.core / device.core_peak) / share.matmul",
    SECONDS,
    "computing one step",
  ],
  [
    "decode.experts_wire",
    "moe.layers * sequences * mtp.width / tp * moe.topk * d * (dispatch.bytes + 2)",
    BYTES,
    "dispatch and combine of one device in one step",
  ],
  [
    "decode.tensor_wire",
    "layers * 2 * 2 * (tp - 1) / tp * sequences * mtp.width * d * 2",
    BYTES,
    "two all-reduces in every layer",
  ],
  [
    "decode.comm",
    "decode.experts_wire * wire.seconds + decode.tensor_wire / (device.link * share.link)",
    SECONDS,
    "all-to-all and all-reduce",
  ],
  [
    "decode.step",
    "decode.correction * if(overlap, max(max(decode.memory, decode.math), decode.comm), max(decode.memory, decode.math) + decode.comm)",
    SECONDS,
    "one step of decoding",
  ],
  ["decode.tpot", "decode.step / mtp.tokens", SECONDS, "between two tokens of a sequence"],
  ["decode.rate", "sequences * mtp.tokens / (decode.step * tp)", "tokens per second", "decoded by one device"],
  ["decode.all", "decode.rate * devices", "tokens per second", "decoded by all devices"],
  [
    "prefill.math",
    "chunk / tp * (prefill.linear / device.peak + prefill.core / device.core_peak) / share.matmul",
    SECONDS,
    "computing one pass",
  ],
  [
    "prefill.memory",
    "(weights.dense + weights.wide + moe.elements * moe.bytes / devices) / (device.bandwidth * share.bandwidth)",
    SECONDS,
    "reading all weights once",
  ],
  [
    "prefill.comm",
    "moe.layers * chunk / tp * d * (dispatch.bytes + 2) * moe.nodes * wire.seconds + layers * 4 * (tp - 1) / tp * chunk * d * 2 / (device.link * share.link)",
    SECONDS,
    "all-to-all (at most so many nodes for a token) and all-reduce",
  ],
  [
    "prefill.pass",
    "prefill.correction * if(overlap, max(max(prefill.math, prefill.memory), prefill.comm), max(prefill.math, prefill.memory) + prefill.comm)",
    SECONDS,
    "one pass of `chunk` tokens",
  ],
  ["prefill.ttft", "prefill.pass * prefill.todo / chunk", SECONDS, "to the first token, no queue"],
  ["prefill.rate", "prompt / (prefill.ttft * tp)", "tokens per second", "of prompts, cached ones counted"],
  ["prefill.all", "prefill.rate * devices", "tokens per second", "of prompts on all devices"],
];

const rowOf = ([name, formula, unit, meaning]: Short): FormulaRow => ({ name, formula, unit, meaning });

/**
 * @throws ConfigError when the devices cannot be dealt out or have no link to each other, for a precision that the
 * device does not accelerate, and for drafts of a model without MTP layers.
 */
export function planInference(shape: ModelShape, device: Device, settings: InferenceSettings = {}): InferencePlan {
  const inputs = inputsOf(shape, device, settings);
  const names: InputRow[] = Object.entries(inputs).map(([name, [, unit, meaning]]) => ({ name, unit, meaning }));
  const sheet = compileSheet([names], [...PROMPTS, ...MEMORY, ...TIMES].map(rowOf));
  const registers = sheet.createRegisters();
  for (const [name, [value]] of Object.entries(inputs)) registers[sheet.slot(name)] = value;
  sheet.run(registers);
  return planOf(sheet, registers);
}

function planOf(sheet: Sheet, registers: Float64Array): InferencePlan {
  const read = (name: string): number => registers[sheet.slot(name)]!;
  return {
    memory: MEMORY.map(([name, , , meaning]) => ({ name, bytes: read(name), meaning })),
    totalBytes: read("memory.total"),
    kvTokenBytes: read("kv.token"),
    decode: {
      readBytes: read("read.bytes"),
      memorySeconds: read("decode.memory"),
      mathSeconds: read("decode.math"),
      commSeconds: read("decode.comm"),
      stepSeconds: read("decode.step"),
      tpotSeconds: read("decode.tpot"),
      tokensPerSecPerDevice: read("decode.rate"),
      tokensPerSec: read("decode.all"),
    },
    prefill: {
      ttftSeconds: read("prefill.ttft"),
      tokensPerSecPerDevice: read("prefill.rate"),
      tokensPerSec: read("prefill.all"),
    },
    names: sheet.rows.map(({ name }) => name),
    explain: (name) => sheet.explain(name, registers),
  };
}

/** value, unit, meaning */
type Input = readonly [number, string, string];

function inputsOf(shape: ModelShape, device: Device, settings: InferenceSettings): Record<string, Input> {
  const { weights = "fp8", devices = 1, tp = 1, batch = 1, context = 4096, overlap = false } = settings;
  const {
    chunk = 8192,
    prompt = context,
    cachedShare = 0,
    drafts = 0,
    acceptance = ASSUMED.draftAcceptance,
  } = settings;
  checkDevices(device, settings);
  checkDrafts(shape, drafts);
  const format = weightFormat(weights);
  const dp = devices / tp;
  const width = 1 + drafts;
  const linear = decodeFlopsPerToken(shape, 0);
  const absorbed = settings.expandedKv !== true;
  // Tokens that are not cached stand at the end of the prompt: they attend to prompt · (1 + cached) / 2 on average.
  const prefill = flopsPerToken(shape, { seqLen: prompt * (1 + cachedShare), mtp: false }).forward;
  return {
    ...parameterInputs(shape),
    ...expertInputs(shape, batch * width, settings),
    ...wireInputs(device, devices, settings),
    ...shareInputs(device, settings),
    "dense.bytes": [format.matrixBytes, BYTES, `one element in ${weights}`],
    "moe.bytes": [format.expertBytes, BYTES, `one expert element in ${weights}`],
    "dispatch.bytes": [format.compute === "bf16" ? 2 : 1 + 4 / 128, BYTES, "one element sent to an expert"],
    "kv.token": [kvOnOneDevice(shape, settings), BYTES, "cached for one token on one device"],
    devices: [devices, "devices", "in all"],
    tp: [tp, "devices", "that share a sequence"],
    sequences: [batch / dp, "sequences", "of one data-parallel rank"],
    context: [context, "tokens", "cached for each sequence"],
    prompt: [prompt, "tokens", "of a prompt"],
    "chunk.limit": [chunk, "tokens", "of one prefill pass of a rank at most"],
    cached: [cachedShare, "share", "of a prompt that the prefix cache has"],
    overlap: [Number(overlap), "", "1 when communication hides behind another micro-batch"],
    "mtp.drafts": [drafts, "tokens", "drafted in a step"],
    "mtp.used": [Math.min(1, drafts), "", "1 when MTP drafts"],
    "mtp.width": [width, "tokens", "of a sequence in one step"],
    "mtp.tokens": [expectedTokensPerStep(drafts, acceptance), "tokens", `of a step, ${acceptance} of the drafts right`],
    "flops.linear": [linear, "FLOP per token", "matrix products of decoding"],
    "flops.core": [
      decodeFlopsPerToken(shape, context, absorbed) - linear,
      "FLOP per token",
      "attention's core, decoding",
    ],
    "prefill.linear": [linear, "FLOP per token", "matrix products of prefill"],
    "prefill.core": [prefill - linear, "FLOP per token", "attention's core over prompt * (1 + cached) / 2"],
    "device.peak": [peakOf(device, format.compute), "FLOP/s", `dense ${format.compute} peak`],
    "device.core_peak": [peakOf(device, "bf16"), "FLOP/s", "dense bf16 peak, for attention's core"],
    "device.bandwidth": [device.memoryBytesPerSec, "bytes per second", "of the memory"],
    "other.bytes": [ASSUMED.runtimeBytes, BYTES, "aiconfigurator's constant"],
  };
}

function checkDevices(device: Device, { devices = 1, tp = 1, batch = 1 }: InferenceSettings): void {
  if (devices % tp !== 0) throw new ConfigError("tp", `must divide the devices (${devices})`, tp, "choose a divisor");
  if (batch < devices / tp) {
    const rule = `must be at least one sequence for each data-parallel rank (${devices / tp})`;
    throw new ConfigError("batch", rule, batch, "raise the batch or tp");
  }
  const linked = device.link?.devices ?? 1;
  if (tp > linked) throw new ConfigError("tp", `must be at most the devices that one link joins (${linked})`, tp);
  if (devices > linked && device.networkBytesPerSec === undefined) {
    const cure = "add network_gb_per_s to a row of your own, or use fewer devices";
    throw new ConfigError(`${device.name}.network`, `must be known for more than ${linked} devices`, devices, cure);
  }
}

function checkDrafts({ nMtpLayers }: ModelShape, drafts: number): void {
  if (drafts === 0 || nMtpLayers > 0) return;
  throw new ConfigError("drafts", "must be 0 for a model without MTP layers", drafts, "choose 0, or a model with them");
}

function kvOnOneDevice(shape: ModelShape, { kv = "bf16", expandedKv = false, tp = 1 }: InferenceSettings): number {
  const bytes = kvBytesPerToken(shape, kv, expandedKv);
  if (isLatentCache(shape, expandedKv)) return bytes;
  const { attention } = shape.kinds[0]!;
  const heads = attention.kind === "mla" ? attention.nHeads : attention.nKvHeads;
  return bytes / Math.min(tp, heads);
}

/** Elements by where they are kept and how often they are read; those of the MTP layers apart. */
function parameterInputs(shape: ModelShape): Record<string, Input> {
  const counts = layerCounts(shape);
  const over = (keep: (parameter: PlanParameter) => boolean, mtp = false): number =>
    shape.kinds.reduce((sum, kind, i) => {
      if ((kind.name === "mtp") !== mtp) return sum;
      return sum + counts[i]! * elementsOf(kind.parameters.filter(keep));
    }, 0);
  const isMatrix = ({ expert, tensor, matrix, name }: PlanParameter): boolean =>
    !expert && matrix !== undefined && (tensor || !name.endsWith("gate"));
  const ends = elementsOf([...shape.front, ...shape.back].filter(({ matrix }) => matrix !== undefined));
  const head = shape.vocabSize * shape.dim;
  return {
    "dense.elements": [over(isMatrix), "elements", "attention, dense FFNs, shared experts"],
    "wide.elements": [over((p) => !p.expert && !isMatrix(p)) + shape.dim, "elements", "routers, their biases, norms"],
    "ends.elements": [ends, "elements", "embedding and head"],
    "head.elements": [head, "elements", "head"],
    "moe.elements": [over(({ expert }) => expert), "elements", "routed experts of all layers"],
    "mtp.dense": [over(({ expert }) => !expert, true), "elements", "MTP layers outside their experts"],
    "mtp.elements": [over(({ expert }) => expert, true), "elements", "routed experts of the MTP layers"],
    layers: [shape.nLayers, "layers", "of the main model"],
    d: [shape.dim, "elements", "width of the residual stream"],
    vocab: [shape.vocabSize, "tokens", "of the vocabulary"],
    widest: [
      Math.max(...shape.kinds.map((kind) => widestElements(shape.dim, kind))),
      "elements",
      "of a token in one layer",
    ],
  };
}

function elementsOf(parameters: readonly PlanParameter[]): number {
  return parameters.reduce((sum, { elements }) => sum + elements, 0);
}

/** Residual, norm, and then either the heads' tensors or the FFN's, whichever is wider. */
function widestElements(dim: number, { attention, ffn }: LayerKind): number {
  const heads =
    attention.kind === "mla"
      ? attention.nHeads * (2 * (attention.qkNopeHeadDim + attention.qkRopeHeadDim) + 2 * attention.vHeadDim)
      : 2 * (attention.nHeads + attention.nKvHeads) * attention.headDim;
  const hidden = ffn.kind === "moe" ? ffn.nActivated * (2 * dim + 3 * ffn.width) : 3 * ffn.width;
  return 2 * dim + Math.max(heads, hidden);
}

function expertInputs(shape: ModelShape, tokens: number, settings: InferenceSettings): Record<string, Input> {
  const counts = layerCounts(shape);
  const layers = shape.kinds.reduce(
    (sum, { name, ffn }, i) => sum + (ffn.kind === "moe" && name !== "mtp" ? counts[i]! : 0),
    0,
  );
  const moe = shape.kinds.map(({ ffn }) => ffn).find((ffn): ffn is FfnShape & { kind: "moe" } => ffn.kind === "moe");
  const { nExperts = 0, nActivated = 0, limitedNodes } = moe ?? {};
  const distinct = expectedDistinctExperts(nExperts, nActivated, tokens);
  return {
    "moe.layers": [layers, "layers", "with routed experts"],
    "moe.experts": [nExperts, "experts", "of a layer"],
    "moe.topk": [nActivated, "experts", "of a token"],
    "moe.nodes": [Math.min(nActivated, limitedNodes ?? nActivated), "nodes", "that one token is sent to at most"],
    "moe.distinct": [distinct, "experts", `E·(1 − (1 − k/E)^B) with ${tokens} tokens in a step`],
    "moe.redundant": [settings.redundantExperts ?? 0, "experts", "copied on each device"],
  };
}

/** Seconds of one sent byte: nothing on one device, the link inside one domain, else the network for what leaves it. */
function wireInputs(
  device: Device,
  devices: number,
  { linkShare = ASSUMED.servingLinkShare }: InferenceSettings,
): Record<string, Input> {
  const { link, networkBytesPerSec } = device;
  const rate = devices > (link?.devices ?? 1) ? networkBytesPerSec! : (link?.bytesPerSec ?? Infinity);
  const share = (devices - 1) / devices;
  return {
    "wire.seconds": [share / (rate * linkShare), "seconds per byte", "sent to another device, the slower of the links"],
    "device.link": [link?.bytesPerSec ?? Infinity, "bytes per second", "of the fast link, one way"],
    "share.link": [linkShare, "share", "of a link's peak"],
  };
}

function shareInputs(device: Device, settings: InferenceSettings): Record<string, Input> {
  const { bandwidthShare = ASSUMED.memoryShare, matmulShare = device.matmulShare ?? ASSUMED.servingMatmulShare } =
    settings;
  const { decodeCorrection = ASSUMED.decodeCorrection, prefillCorrection = ASSUMED.prefillCorrection } = settings;
  return {
    "share.bandwidth": [bandwidthShare, "share", "of the memory bandwidth"],
    "share.matmul": [matmulShare, "share", "of the peak that matrix products reach"],
    "decode.correction": [decodeCorrection, "factor", "aiconfigurator's, on decoding"],
    "prefill.correction": [prefillCorrection, "factor", "aiconfigurator's, on prefill"],
  };
}
