/**
 * Memory, prefill and decode of a served model on one kind of device: rooflines from bytes and FLOPs, with the share
 * of the peaks that engines reach. Attention is replicated over DP ranks of `tp` devices each; the routed experts are
 * dealt out over all devices. Every number is a row of one sheet, so that its derivation can be printed.
 *
 * **Source:** DeepSeek-V3 report 3.4 and open-infra-index day 6 (EP decoding, two overlapped micro-batches).
 */

import { ConfigError } from "../core/errors.ts";
import { ASSUMED } from "./assumptions.ts";
import { compileSheet, type InputRow, type Quantity, type Sheet } from "./formula.ts";
import { peakOf, type Device } from "./hardware.ts";
import { inferenceRows, MEMORY_NAMES } from "./inference-rows.ts";
import { indexBytesPerToken, isLatentCache, KV_FORMATS, type KvFormat } from "./kv-cache.ts";
import { layerCounts, type FfnShape, type LayerKind, type ModelShape, type PlanParameter } from "./shape.ts";
import { weightFormat } from "./weight-formats.ts";
import { decodeFlopsPerToken, explainWork, positionFlops, type PositionFlops } from "./work.ts";

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
  /** Share of the memory that a plan may use; as assumed. */
  readonly memoryShare?: number;
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

/**
 * @throws ConfigError when the devices cannot be dealt out or have no link to each other, for a precision that the
 * device does not accelerate, and for drafts of a model without MTP layers.
 */
export function planInference(shape: ModelShape, device: Device, settings: InferenceSettings = {}): InferencePlan {
  const inputs = inputsOf(shape, device, settings);
  const names: InputRow[] = Object.entries(inputs).map(([name, [, unit, meaning]]) => ({ name, unit, meaning }));
  const sheet = compileSheet([names], inferenceRows(shape, settings));
  const registers = sheet.createRegisters();
  for (const [name, [value]] of Object.entries(inputs)) registers[sheet.slot(name)] = value;
  sheet.run(registers);
  return planOf(shape, sheet, registers);
}

function planOf(shape: ModelShape, sheet: Sheet, registers: Float64Array): InferencePlan {
  const read = (name: string): number => registers[sheet.slot(name)]!;
  return {
    memory: sheet.rows
      .filter(({ name }) => MEMORY_NAMES.includes(name))
      .map(({ name, meaning }) => ({ name, bytes: read(name), meaning })),
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
    names: ["flops.linear", ...sheet.rows.map(({ name }) => name)],
    explain: (name) => withProducts(shape, sheet.explain(name, registers)),
  };
}

/** Opens the products of a token, which another sheet computes. */
function withProducts(shape: ModelShape, quantity: Quantity): Quantity {
  const { name, inputs } = quantity;
  if (name !== "flops.linear") return { ...quantity, inputs: inputs.map((input) => withProducts(shape, input)) };
  return { ...explainWork(shape, { seqLen: 0, mtp: false }, "flops.linear"), meaning: quantity.meaning };
}

const BYTES = "bytes";

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
    memoryShare = ASSUMED.memoryMargin,
  } = settings;
  checkDevices(device, settings);
  checkDrafts(shape, drafts);
  const format = weightFormat(weights);
  const dp = devices / tp;
  const width = 1 + drafts;
  return {
    ...parameterInputs(shape),
    ...expertInputs(shape, settings),
    ...attentionInputs(shape, settings),
    ...wireInputs(device, devices, settings),
    ...shareInputs(device, settings),
    "dense.bytes": [format.matrixBytes, BYTES, `one element in ${weights}`],
    "moe.bytes": [format.expertBytes, BYTES, `one expert element in ${weights}`],
    "dispatch.bytes": [format.compute === "bf16" ? 2 : 1 + 4 / 128, BYTES, "one element sent to an expert"],
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
    "mtp.acceptance": [acceptance, "share", "of the drafts that are right"],
    "device.peak": [peakOf(device, format.compute), "FLOP/s", `dense ${format.compute} peak`],
    "device.core_peak": [peakOf(device, "bf16"), "FLOP/s", "dense bf16 peak, for attention's core"],
    "device.bandwidth": [device.memoryBytesPerSec, "bytes per second", "of the memory"],
    "device.memory": [device.memoryBytes, BYTES, "of the memory"],
    "device.domain": [device.link?.devices ?? 1, "devices", "that one fast link joins"],
    "share.memory": [memoryShare, "share", "of the memory that may be planned"],
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

/** What the cache holds, and what a query and one position of it take. */
function attentionInputs(shape: ModelShape, settings: InferenceSettings): Record<string, Input> {
  const { kv = "bf16", expandedKv = false } = settings;
  const { bytes, scaleBytes } = KV_FORMATS[kv];
  const cached = positionFlops(shape, !expandedKv);
  const [absorbed, whole] = [positionFlops(shape), positionFlops(shape, false)];
  const each = "FLOP of all layers for one query and one position";
  return {
    "kv.bytes": [bytes, BYTES, `one cached element in ${kv}`],
    "kv.scale": [scaleBytes, BYTES, "scale of one token and layer"],
    "kv.ranks": [cacheRanks(shape, settings), "devices", "among which the heads of the cache are dealt out"],
    "flops.linear": [decodeFlopsPerToken(shape, 0), "FLOP per token", "matrix products of one token"],
    "core.position": [cached.core, "FLOP", `${each}: attention's core against the cache`],
    "core.absorbed": [absorbed.core, "FLOP", `${each}: attention's core against the latent`],
    "core.whole": [whole.core, "FLOP", `${each}: attention's core against whole keys and values`],
    ...(absorbed.index === 0 ? {} : indexInputs(shape, absorbed, each)),
  };
}

function indexInputs(shape: ModelShape, { index, topK }: PositionFlops, each: string): Record<string, Input> {
  return {
    "index.position": [index, "FLOP", `${each}: scores of the indexer`],
    "index.topk": [topK, "positions", "that the indexer leaves to a query"],
    "index.token": [indexBytesPerToken(shape), BYTES, "keys of the indexers for one token, fp8 with scales"],
  };
}

/** The latent has no heads to deal out. */
function cacheRanks(shape: ModelShape, { expandedKv = false, tp = 1 }: InferenceSettings): number {
  if (isLatentCache(shape, expandedKv)) return 1;
  const { attention } = shape.kinds[0]!;
  return Math.min(tp, attention.kind === "mla" ? attention.nHeads : attention.nKvHeads);
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

function expertInputs(shape: ModelShape, settings: InferenceSettings): Record<string, Input> {
  const counts = layerCounts(shape);
  const layers = shape.kinds.reduce(
    (sum, { name, ffn }, i) => sum + (ffn.kind === "moe" && name !== "mtp" ? counts[i]! : 0),
    0,
  );
  const moe = shape.kinds.map(({ ffn }) => ffn).find((ffn): ffn is FfnShape & { kind: "moe" } => ffn.kind === "moe");
  const { nExperts = 0, nActivated = 0, nGroups = 1, limitedGroups = 1 } = moe ?? {};
  return {
    "moe.layers": [layers, "layers", "with routed experts"],
    "moe.experts": [nExperts, "experts", "of a layer"],
    "moe.topk": [nActivated, "experts", "of a token"],
    "moe.groups": [nGroups, "groups", "of the experts"],
    "moe.limit": [limitedGroups, "groups", "among which a token may choose"],
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
