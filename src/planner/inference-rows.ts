/**
 * The formulas of serving: memory, one step of decoding, one pass of prefill. What they read are the inputs of
 * `planInference`.
 *
 * **Source:** DeepSeek-V3 report 2.1.2 and 3.4; DeepSeek-V3.2 report 2 for the indexer: it scores every position and
 * leaves `index.topk` to attention; a short prompt is computed with masked attention over whole keys.
 */

import { formulaRow, type FormulaRow } from "./formula.ts";
import type { InferenceSettings } from "./inference.ts";
import { cachedElements } from "./kv-cache.ts";
import { layerCounts, type ModelShape } from "./shape.ts";
import { hasIndexer } from "./work.ts";

const SECONDS = "seconds";
const BYTES = "bytes";

/** name, formula, unit, meaning */
type Short = readonly [string, string, string, string];

/** Engines compute at least the last token of a prompt, whatever the prefix cache has. */
const PROMPTS: readonly Short[] = [
  ["prefill.todo", "max(1, prompt * (1 - cached))", "tokens", "of a prompt that the prefix cache does not have"],
  ["chunk", "min(chunk.limit, prefill.todo)", "tokens", "of one prefill pass of a rank"],
];

const EXPERTS: readonly Short[] = [
  ["tokens.step", "sequences * mtp.width * devices / tp", "tokens", "of all sequences in one step"],
  [
    "moe.distinct",
    "moe.experts * (1 - pow(1 - moe.topk / max(moe.experts, 1), tokens.step))",
    "experts",
    "of a layer that at least one of these tokens chose, when all are equally likely",
  ],
  ["nodes", "max(1, devices / device.domain)", "nodes", "over which the experts are dealt out"],
  [
    "prefill.copies",
    "if(ge(1, nodes), moe.topk, min(moe.topk, min(nodes, if(ge(1, moe.groups), nodes, moe.limit * max(1, nodes / moe.groups)))))",
    "copies",
    "of a token that are sent: to each expert over the fast link, over the network to each node at most, of those that its groups are on",
  ],
];

const CORE = "attention's core, decoding";
const PREFILL_CORE = "attention's core, prefill";
const POSITIONS: Short = [
  "prefill.positions",
  "prompt * (1 + cached) / 2",
  "positions",
  "that a token attends to on average: what is not cached stands at the end of the prompt",
];

const DENSE: readonly Short[] = [
  ["kv.token", "kv.entry", BYTES, "cached for one token on one device"],
  ["read.cache", "kv.token * sequences * context", BYTES, "cached latents, or keys and values, that a step reads"],
  ["flops.core", "core.position * context", "FLOP per token", CORE],
  POSITIONS,
  ["prefill.core", "core.whole * prefill.positions", "FLOP per token", PREFILL_CORE],
];

/** ∫ min(t, topk) dt from 0 to `end`. */
const chosenUpTo = (end: string): string =>
  `(min(index.topk, ${end}) * (${end}) - pow(min(index.topk, ${end}), 2) / 2)`;

const SPARSE: readonly Short[] = [
  ["kv.token", "kv.entry + index.token", BYTES, "cached for one token on one device"],
  [
    "read.cache",
    "sequences * (kv.entry * min(context, index.topk) + index.token * context)",
    BYTES,
    "keys of the indexer, and latents of the chosen positions, that a step reads",
  ],
  [
    "flops.core",
    "core.position * min(context, index.topk) + index.position * context",
    "FLOP per token",
    `${CORE} over the chosen positions, and the indexer over all`,
  ],
  POSITIONS,
  [
    "prefill.keys",
    `(${chosenUpTo("prompt")} - ${chosenUpTo("max(0, prompt - prefill.todo)")}) / prefill.todo`,
    "positions",
    "that the indexer leaves to a token on average",
  ],
  [
    "prefill.core",
    "min(core.whole * prefill.positions, core.absorbed * prefill.keys) + index.position * prefill.positions",
    "FLOP per token",
    `${PREFILL_CORE}, masked over whole keys or absorbed over the chosen positions, whichever is less, and the indexer`,
  ],
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
  ["memory.limit", "device.memory * share.memory", BYTES, "that may be planned of one device"],
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
  ["read.bytes", "read.dense + read.experts + read.drafts + read.cache", BYTES, "read from memory in one step"],
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
    "chunk / tp * (flops.linear / device.peak + prefill.core / device.core_peak) / share.matmul",
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
    "moe.layers * chunk / tp * d * (dispatch.bytes + 2) * prefill.copies * wire.seconds + layers * 4 * (tp - 1) / tp * chunk * d * 2 / (device.link * share.link)",
    SECONDS,
    "all-to-all and all-reduce",
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

const rowOf = ([name, formula, unit, meaning]: Short): FormulaRow => formulaRow(name, formula, unit, meaning);

/** Names of the rows that sum to `memory.total`. */
export const MEMORY_NAMES: readonly string[] = MEMORY.map(([name]) => name);

/** All rows, for a model and how its cache and drafts are set. */
export function inferenceRows(shape: ModelShape, settings: InferenceSettings): FormulaRow[] {
  const isSparse = shape.kinds.some(hasIndexer);
  const own = [...draftRows(settings), ...cacheRows(shape, settings), ...(isSparse ? SPARSE : DENSE)];
  const memory = isSparse ? MEMORY.map(withIndexer) : MEMORY;
  return [...PROMPTS, ...EXPERTS, ...own, ...memory, ...TIMES].map(rowOf);
}

/** The cache holds keys of the indexer, too. */
function withIndexer([name, formula, unit, meaning]: Short): Short {
  return [name, formula, unit, name === "kv.cache" ? `${meaning}, and keys of the indexer` : meaning];
}

/** The first wrong draft ends a step. */
function draftRows({ drafts = 0 }: InferenceSettings): Short[] {
  const right = Array.from({ length: drafts }, (_, i) => `pow(mtp.acceptance, ${i + 1})`);
  return [["mtp.tokens", ["1", ...right].join(" + "), "tokens", "of a sequence that a step yields on average"]];
}

/** Layers of a kind times what each caches. */
function cacheRows(shape: ModelShape, { expandedKv = false }: InferenceSettings): Short[] {
  const counts = layerCounts(shape);
  const layers = shape.kinds.flatMap(({ name, attention }, i) =>
    name === "mtp" ? [] : [`${counts[i]!} * (${cachedElements(attention, expandedKv)} * kv.bytes + kv.scale)`],
  );
  const meaning = "keys and values, or latents, of one token on one device";
  return [["kv.entry", `(${layers.join(" + ")}) / kv.ranks`, BYTES, meaning]];
}
