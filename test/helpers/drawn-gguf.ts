/**
 * Drawn weights as a GGUF file, written as llama.cpp's converter does: q and k permuted by head for `llama` and `deepseek`,
 * the kv projection of `deepseek2` whole or split into transposed keys and values, MTP layers left out.
 *
 * **Source:** ggml-org/llama.cpp conversion/llama.py (permute) and conversion/deepseek.py.
 */

import { blueprint, checkpointNames, ggufNames, type GgufTensorName } from "../../src/blueprint/index.ts";
import type { ModelConfig } from "../../src/config/index.ts";
import { encodeBlocks, typeForRows, type WritableBlockType } from "../../src/core/index.ts";
import type { GgufContent, GgufEntry } from "../../src/formats/index.ts";
import { createByteTokenizer } from "./byte-tokenizer.ts";
import type { DrawnTensor } from "./drawn-weights.ts";

const u32 = (value: number): GgufEntry => ({ type: "u32", value });
const f32 = (value: number): GgufEntry => ({ type: "f32", value });
const text = (value: string): GgufEntry => ({ type: "text", value });
const GATING = { softmax: 1, sigmoid: 2, sqrtsoftplus: 4 } as const;

export interface GgufStyle {
  readonly splitKvB: boolean;
  /** Of matrices; norms, router and biases are F32. */
  readonly type: WritableBlockType;
}

export function drawnGguf(
  model: ModelConfig,
  weights: ReadonlyMap<string, DrawnTensor>,
  style: GgufStyle,
): GgufContent {
  const tensors = drawnGgufTensors({ ...model, nMtpLayers: 0 }, weights, style);
  return { metadata: new Map([...modelKeys(model, style), ...tokenizerKeys(model.vocabSize)]), tensors };
}

type DrawnGgufTensor = Omit<GgufContent["tensors"][number], "chunks"> & { readonly chunks: () => Uint8Array[] };

/** MTP layers included. */
export function drawnGgufTensors(
  model: ModelConfig,
  weights: ReadonlyMap<string, DrawnTensor>,
  style: GgufStyle,
): DrawnGgufTensor[] {
  const parameters = stackExperts(model, weights);
  return ggufNames(blueprint(model), style).map((entry) => {
    const { name, shape } = entry;
    const isPlain = shape.length === 1 || /(?:ffn_gate_inp|indexer\.proj)\.weight$/.test(name);
    const dtype = isPlain ? "F32" : typeForRows(style.type, shape.at(-1)!);
    const values = converted(entry, parameters.get(entry.parameters[0]!)!, model);
    return { name, shape, dtype, chunks: () => [encodeBlocks(dtype, values)] };
  });
}

function stackExperts(model: ModelConfig, weights: ReadonlyMap<string, DrawnTensor>): Map<string, number[]> {
  const parameters = new Map<string, number[]>();
  for (const { name, parameter } of checkpointNames(blueprint(model))) {
    const values = parameters.get(parameter) ?? [];
    for (const value of weights.get(name)!.values) values.push(value);
    parameters.set(parameter, values);
  }
  return parameters;
}

/** Element by element: the value at [row, column] of the tensor, heads below each other. */
function converted({ layout, shape }: GgufTensorName, values: readonly number[], model: ModelConfig): Float32Array {
  const { headDim, kvLoraRank, qkNopeHeadDim, vHeadDim } = model;
  const columns = shape.at(-1)!;
  const perHead = qkNopeHeadDim + vHeadDim;
  const at = (row: number, column: number): number => {
    switch (layout) {
      case "halves": {
        const [head, place] = [Math.floor(row / headDim), row % headDim];
        return (head * headDim + (place % 2) * (headDim / 2) + Math.floor(place / 2)) * columns + column;
      }
      case "keys": {
        const [head, latent] = [Math.floor(row / kvLoraRank), row % kvLoraRank];
        return (head * perHead + column) * kvLoraRank + latent;
      }
      case "values": {
        const [head, place] = [Math.floor(row / vHeadDim), row % vHeadDim];
        return (head * perHead + qkNopeHeadDim + place) * kvLoraRank + column;
      }
      case "same":
      case "joined":
        return row * columns + column;
    }
  };
  const size = shape.reduce((product, n) => product * n, 1);
  return Float32Array.from({ length: size }, (_, i) => values[at(Math.floor(i / columns), i % columns)]!);
}

function modelKeys(model: ModelConfig, style: GgufStyle): [string, GgufEntry][] {
  const isMoe = model.nDenseLayers < model.nLayers;
  const arch = model.attention === "mla" ? "deepseek2" : isMoe ? "deepseek" : "llama";
  const keys: Record<string, GgufEntry> = {
    vocab_size: u32(model.vocabSize),
    block_count: u32(model.nLayers),
    context_length: u32(model.maxSeqLen),
    embedding_length: u32(model.dim),
    feed_forward_length: u32(model.interDim),
    "attention.head_count": u32(model.nHeads),
    "attention.layer_norm_rms_epsilon": f32(model.rmsNormEps),
    "rope.freq_base": f32(model.ropeTheta),
    "rope.dimension_count": u32(model.qkRopeHeadDim),
    ...(arch === "deepseek2" ? latentKeys(model, style) : plainHeads(model)),
    ...(isMoe ? expertKeys(model) : {}),
    ...yarnKeys(model),
  };
  return [
    ["general.architecture", text(arch)],
    ...Object.entries(keys).map(([key, entry]): [string, GgufEntry] => [`${arch}.${key}`, entry]),
  ];
}

function plainHeads({ nKvHeads, headDim }: ModelConfig): Record<string, GgufEntry> {
  return {
    "attention.head_count_kv": u32(nKvHeads),
    "attention.key_length": u32(headDim),
    "attention.value_length": u32(headDim),
  };
}

function latentKeys(model: ModelConfig, { splitKvB }: GgufStyle): Record<string, GgufEntry> {
  const { nHeads, qLoraRank, kvLoraRank, qkRopeHeadDim, qkHeadDim, vHeadDim } = model;
  const split = {
    "attention.head_count_kv": u32(1),
    "attention.key_length": u32(kvLoraRank + qkRopeHeadDim),
    "attention.value_length": u32(kvLoraRank),
    "attention.key_length_mla": u32(qkHeadDim),
    "attention.value_length_mla": u32(vHeadDim),
  };
  const whole = {
    "attention.head_count_kv": u32(nHeads),
    "attention.key_length": u32(qkHeadDim),
    "attention.value_length": u32(vHeadDim),
  };
  return {
    "attention.q_lora_rank": u32(qLoraRank),
    "attention.kv_lora_rank": u32(kvLoraRank),
    ...(splitKvB ? split : whole),
  };
}

function expertKeys(model: ModelConfig): Record<string, GgufEntry> {
  const groups = {
    expert_group_count: u32(model.nExpertGroups),
    expert_group_used_count: u32(model.nLimitedGroups),
  };
  return {
    leading_dense_block_count: u32(model.nDenseLayers),
    expert_count: u32(model.nRoutedExperts),
    expert_used_count: u32(model.nActivatedExperts),
    expert_shared_count: u32(model.nSharedExperts),
    expert_feed_forward_length: u32(model.moeInterDim),
    expert_weights_scale: f32(model.routeScale),
    expert_gating_func: u32(GATING[model.scoreFunc]),
    expert_weights_norm: { type: "bool", value: model.normTopkProb },
    ...(model.nExpertGroups > 1 ? groups : {}),
  };
}

function yarnKeys(model: ModelConfig): Record<string, GgufEntry> {
  if (model.ropeFactor === 1) return { "rope.scaling.type": text("none") };
  const multiplier = { "rope.scaling.yarn_log_multiplier": f32(0.1 * model.mscaleAllDim) };
  return {
    "rope.scaling.type": text("yarn"),
    "rope.scaling.factor": f32(model.ropeFactor),
    "rope.scaling.original_context_length": u32(model.originalSeqLen),
    "rope.scaling.yarn_beta_fast": f32(model.betaFast),
    "rope.scaling.yarn_beta_slow": f32(model.betaSlow),
    ...(model.attention === "mla" ? multiplier : {}),
  };
}

/** The byte tokenizer, filled up to the rows; cut where there are fewer of them, for models that see ids alone. */
function tokenizerKeys(rows: number): [string, GgufEntry][] {
  const { bosId, eosId, padId, ...tokenizer } = readByteTokenizer();
  const tokens = Array.from({ length: rows }, (_, id) => tokenizer.tokens[id] ?? `[PAD${id}]`);
  const types = tokens.map((_, id) => (id <= padId ? 3 : id < tokenizer.tokens.length ? 1 : 5));
  return [
    ["tokenizer.ggml.model", text("gpt2")],
    ["tokenizer.ggml.pre", text("deepseek-v3")],
    ["tokenizer.ggml.tokens", { type: "list", of: "text", values: tokens }],
    ["tokenizer.ggml.token_type", { type: "list", of: "i32", values: types }],
    ["tokenizer.ggml.merges", { type: "list", of: "text", values: [] }],
    ["tokenizer.ggml.bos_token_id", u32(bosId)],
    ["tokenizer.ggml.eos_token_id", u32(eosId)],
    ["tokenizer.ggml.padding_token_id", u32(padId)],
  ];
}

function readByteTokenizer(): { tokens: string[]; bosId: number; eosId: number; padId: number } {
  const tokenizer = createByteTokenizer();
  const json = JSON.parse(tokenizer.toJson()) as {
    added_tokens: { id: number; content: string }[];
    model: { vocab: Record<string, number> };
  };
  const tokens: string[] = [];
  for (const [token, id] of Object.entries(json.model.vocab)) tokens[id] = token;
  for (const { id, content } of json.added_tokens) tokens[id] = content;
  const { bosId, eosId, padId } = tokenizer;
  return { tokens, bosId, eosId, padId };
}
