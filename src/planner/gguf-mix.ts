/**
 * Which type each tensor gets when llama.cpp quantises a file with one of its named mixes, and so the file's size.
 *
 * **Source:** llama.cpp v0.5.0, src/llama-quant.cpp: default types, mixtures, fallbacks. Its rules for families that
 * are not DeepSeek's (Falcon, LLaMA 70B) are left out.
 */

import type { ModelConfig } from "../config/index.ts";
import { ConfigError, invariant, nearest } from "../core/errors.ts";
import type { GgufTensor } from "./gguf-tensors.ts";
import { QUANT_BLOCKS, quantBytes, type QuantType } from "./quant-types.ts";

/** The named mixes and the type of the tensors for which no other rule holds. */
const DEFAULT_TYPES = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
  Q8_0: "q8_0",
  Q6_K: "q6_K",
  Q5_K_M: "q5_K",
  Q5_K_S: "q5_K",
  Q5_1: "q5_1",
  Q5_0: "q5_0",
  Q4_K_M: "q4_K",
  Q4_K_S: "q4_K",
  Q4_1: "q4_1",
  Q4_0: "q4_0",
  Q3_K_L: "q3_K",
  Q3_K_M: "q3_K",
  Q3_K_S: "q3_K",
  Q2_K: "q2_K",
  Q2_K_S: "q2_K",
  IQ4_NL: "iq4_nl",
  IQ4_XS: "iq4_xs",
  IQ3_M: "iq3_s",
  IQ3_S: "iq3_s",
  IQ3_XS: "iq3_s",
  IQ3_XXS: "iq3_xxs",
  IQ2_M: "iq2_s",
  IQ2_S: "iq2_xs",
  IQ2_XS: "iq2_xs",
  IQ2_XXS: "iq2_xxs",
  IQ1_M: "iq1_m",
  IQ1_S: "iq1_s",
} as const satisfies Record<string, QuantType>;

export type GgufMix = keyof typeof DEFAULT_TYPES;

/** The mixes, from the largest file to the smallest as a rule. */
export const GGUF_MIXES: readonly GgufMix[] = Object.keys(DEFAULT_TYPES) as GgufMix[];

export interface MixModel {
  readonly nLayers: number;
  readonly nRoutedExperts: number;
  /** Query heads for each head of keys; with MLA all query heads share the one latent. */
  readonly queryHeadsPerKvHead: number;
}

export interface QuantisedTensor extends GgufTensor {
  readonly type: QuantType;
  readonly bytes: number;
}

/** @throws ConfigError with the nearest name. */
export function ggufMix(name: string): GgufMix {
  const found = GGUF_MIXES.find((mix) => mix.toLowerCase() === name.toLowerCase());
  if (found !== undefined) return found;
  const close = nearest(name, GGUF_MIXES);
  const cure = close === undefined ? `choose one of ${GGUF_MIXES.join(", ")}` : `did you mean ${close}?`;
  throw new ConfigError("quant", "must be a mix of llama.cpp", name, cure);
}

/** What the rules ask about a model. */
export function mixModel({ attention, nLayers, nHeads, nKvHeads, nRoutedExperts }: ModelConfig): MixModel {
  return { nLayers, nRoutedExperts, queryHeadsPerKvHead: attention === "mla" ? nHeads : nHeads / nKvHeads };
}

/**
 * Type and bytes of every tensor after `llama-quantize` with this mix.
 *
 * @param tensors - in the file's order, which some rules count by. @param imatrix - whether an importance matrix is given.
 */
export function quantise(
  tensors: readonly GgufTensor[],
  model: MixModel,
  mix: GgufMix,
  imatrix = false,
): QuantisedTensor[] {
  const rules: Rules = {
    mix,
    imatrix,
    model,
    tied: !tensors.some(({ name }) => name === "output.weight"),
    values: tensors.filter(({ name }) => isValue(categoryOf(name))).length,
    seenValues: 0,
    seenDowns: 0,
  };
  return tensors.map((tensor) => {
    const type = isQuantised(tensor) ? fitted(tensor, chosen(rules, tensor)) : "f32";
    return { ...tensor, type, bytes: quantBytes(type, tensor.elements) };
  });
}

/** What stays in float32: vectors, norms, the router. */
function isQuantised({ name, dims }: GgufTensor): boolean {
  return dims > 1 && name.endsWith("weight") && !/_norm\.weight$|ffn_gate_inp\.weight$/.test(name);
}

type Category = "output" | "embedding" | "q" | "k" | "v" | "kv_b" | "attn_output" | "up" | "gate" | "down" | "other";

const CATEGORIES: readonly (readonly [RegExp, Category])[] = [
  [/^output\.weight$/, "output"],
  [/^token_embd\.weight$/, "embedding"],
  [/attn_kv_b\.weight/, "kv_b"],
  [/attn_v\.weight/, "v"],
  [/attn_k\.weight/, "k"],
  [/attn_q\.weight/, "q"],
  [/attn_output\.weight/, "attn_output"],
  [/ffn_up/, "up"],
  [/ffn_gate/, "gate"],
  [/ffn_down/, "down"],
];

function categoryOf(name: string): Category {
  return CATEGORIES.find(([pattern]) => pattern.test(name))?.[1] ?? "other";
}

const isValue = (category: Category): boolean => category === "v" || category === "kv_b";

/** The state of one pass over the file. */
interface Rules {
  readonly mix: GgufMix;
  readonly imatrix: boolean;
  readonly model: MixModel;
  /** Without an output matrix the embedding takes its type. */
  readonly tied: boolean;
  readonly values: number;
  seenValues: number;
  seenDowns: number;
}

const LOWEST: ReadonlySet<GgufMix> = new Set(["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"]);

function chosen(rules: Rules, tensor: GgufTensor): QuantType {
  const { mix } = rules;
  const base: QuantType = DEFAULT_TYPES[mix];
  if (QUANT_BLOCKS[base].elements === 1) return base;
  const category = categoryOf(tensor.name);
  if (category === "output" || (rules.tied && category === "embedding")) return outputType(mix, base, tensor);
  if (category === "embedding") return EMBEDDING_TYPES[mix] ?? base;
  if (LOWEST.has(mix)) return lowestType(rules, category) ?? base;
  if (isValue(category)) return valueType(rules) ?? base;
  if (category === "down") return downType(rules, tensor) ?? base;
  if (category === "attn_output") return attentionOutputType(rules) ?? base;
  if (category === "k" || category === "q") return queryKeyType(rules, category) ?? base;
  if (category === "gate" || category === "up") return gateUpType(rules, tensor) ?? base;
  return base;
}

function outputType(mix: GgufMix, base: QuantType, { columns }: GgufTensor): QuantType {
  if (columns % QUANT_BLOCKS[base].elements !== 0) return "q8_0";
  if (mix === "IQ3_XXS" || LOWEST.has(mix)) return "q5_K";
  return base === "q8_0" ? base : "q6_K";
}

const EMBEDDING_TYPES: Readonly<Partial<Record<GgufMix, QuantType>>> = {
  IQ1_S: "q2_K",
  IQ1_M: "q2_K",
  IQ2_XXS: "q2_K",
  IQ2_XS: "q2_K",
  IQ2_S: "iq3_s",
  IQ2_M: "iq3_s",
  IQ3_XXS: "iq3_s",
};

const eighth = (n: number): number => Math.floor(n / 8);

/** The first eighth, the last eighth and every third tensor between. */
function usesMoreBits(index: number, count: number): boolean {
  return index < eighth(count) || index >= Math.floor((7 * count) / 8) || (index - eighth(count)) % 3 === 2;
}

function lowestType(rules: Rules, category: Category): QuantType | undefined {
  const { mix, model } = rules;
  const isIq2s = mix === "IQ2_S" || mix === "IQ2_M";
  if (isValue(category)) {
    if (model.queryHeadsPerKvHead >= 4 || model.nRoutedExperts >= 4) return "q4_K";
    return isIq2s ? "iq3_s" : "q2_K";
  }
  if (category === "down") {
    return rules.seenDowns++ < eighth(model.nLayers) ? (isIq2s ? "iq3_s" : "q2_K") : undefined;
  }
  if (category === "k" && model.nRoutedExperts === 8) return "q4_K";
  if (category !== "attn_output") return undefined;
  if (model.nRoutedExperts === 8) return "q5_K";
  if (mix === "IQ1_S" || mix === "IQ1_M") return "iq2_xxs";
  return isIq2s ? "iq3_s" : undefined;
}

/** What the rules for values and for down projections ask. */
interface Ask {
  /** Which of the tensors of this kind it is, or its layer, and how many there are. */
  readonly index: number;
  readonly count: number;
  /** Whether four or more query heads share a key. */
  readonly grouped: boolean;
  readonly imatrix: boolean;
  /** In the first eighth of the layers. */
  readonly first: boolean;
  readonly eightExperts: boolean;
}

type Rule = (ask: Ask) => QuantType | undefined;

const moreBits: Rule = ({ index, count }) => (usesMoreBits(index, count) ? "q6_K" : undefined);
const whenGrouped =
  (type: QuantType): Rule =>
  ({ grouped }) =>
    grouped ? type : undefined;

const VALUE_RULES: Readonly<Partial<Record<GgufMix, Rule>>> = {
  Q2_K: ({ grouped }) => (grouped ? "q4_K" : "q3_K"),
  Q2_K_S: whenGrouped("q4_K"),
  IQ3_XS: whenGrouped("q4_K"),
  IQ3_S: whenGrouped("q4_K"),
  IQ3_XXS: ({ grouped, imatrix }) => (grouped ? "q4_K" : imatrix ? "iq3_xxs" : "iq3_s"),
  IQ3_M: () => "q4_K",
  Q3_K_M: ({ index }) => (index < 2 ? "q5_K" : "q4_K"),
  Q3_K_L: () => "q5_K",
  IQ4_NL: whenGrouped("q5_K"),
  IQ4_XS: whenGrouped("q5_K"),
  Q4_K_M: moreBits,
  Q5_K_M: moreBits,
  Q4_K_S: ({ index }) => (index < 4 ? "q5_K" : undefined),
};

function valueType(rules: Rules): QuantType | undefined {
  const { mix, model, imatrix, values } = rules;
  const index = rules.seenValues++;
  if (model.nRoutedExperts === 8) return "q8_0";
  return VALUE_RULES[mix]?.({ ...askOf(model, imatrix), index, count: values });
}

function askOf(model: MixModel, imatrix: boolean, layer = 0): Ask {
  return {
    index: layer,
    count: model.nLayers,
    grouped: model.queryHeadsPerKvHead >= 4,
    imatrix,
    first: layer < eighth(model.nLayers),
    eightExperts: model.nRoutedExperts === 8,
  };
}

const firstWithoutImatrix: Rule = ({ first, imatrix }) => (first && !imatrix ? "q5_K" : undefined);

const DOWN_RULES: Readonly<Partial<Record<GgufMix, Rule>>> = {
  Q2_K: () => "q3_K",
  Q2_K_S: ({ first }) => (first ? "q4_K" : undefined),
  IQ3_XXS: ({ first, imatrix }) => (imatrix ? undefined : first ? "q4_K" : "q3_K"),
  Q3_K_M: ({ index, count }) => (index < Math.floor(count / 16) ? "q5_K" : "q4_K"),
  Q3_K_L: () => "q5_K",
  IQ3_M: ({ first, eightExperts, index, count }) =>
    first || (eightExperts && usesMoreBits(index, count)) ? "q4_K" : undefined,
  Q4_K_M: moreBits,
  Q5_K_M: moreBits,
  IQ4_NL: firstWithoutImatrix,
  IQ4_XS: firstWithoutImatrix,
  Q4_K_S: ({ first }) => (first ? "q5_K" : undefined),
  Q4_0: ({ first, imatrix }) => (first && imatrix ? "q4_1" : undefined),
  Q5_0: ({ first, imatrix }) => (first && imatrix ? "q5_1" : undefined),
};

function downType({ mix, imatrix, model }: Rules, { layer }: GgufTensor): QuantType | undefined {
  return DOWN_RULES[mix]?.(askOf(model, imatrix, layer));
}

const EIGHT_EXPERTS_Q5: ReadonlySet<GgufMix> = new Set([
  ...(["Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL"] as const),
  ...(["Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS"] as const),
]);

const ATTENTION_OUTPUT_TYPES: Readonly<Partial<Record<GgufMix, QuantType>>> = {
  Q2_K: "q3_K",
  IQ3_XXS: "iq3_s",
  Q3_K_M: "q4_K",
  Q3_K_L: "q5_K",
  IQ3_M: "q4_K",
};

function attentionOutputType({ mix, model }: Rules): QuantType | undefined {
  if (model.nRoutedExperts === 8) return EIGHT_EXPERTS_Q5.has(mix) ? "q5_K" : undefined;
  return ATTENTION_OUTPUT_TYPES[mix];
}

function queryKeyType({ mix, model }: Rules, category: "q" | "k"): QuantType | undefined {
  if (category === "k" && model.nRoutedExperts === 8) return "q8_0";
  if (mix === "IQ3_XS") return "iq3_xxs";
  return mix === "IQ3_XXS" ? "iq2_s" : undefined;
}

function gateUpType({ mix, model }: Rules, { layer }: GgufTensor): QuantType | undefined {
  const { nLayers } = model;
  const isMiddle = layer >= eighth(nLayers) && layer < Math.floor((7 * nLayers) / 8);
  return mix === "IQ3_XS" && isMiddle ? "iq3_xxs" : undefined;
}

/** A type with blocks of 32 for rows that are not whole blocks of 256; float16 where even those do not fit. */
function fitted({ columns }: GgufTensor, type: QuantType): QuantType {
  if (columns % QUANT_BLOCKS[type].elements === 0) return type;
  const fallback = QUANT_BLOCKS[type].elements === 256 ? FALLBACKS[type] : type;
  invariant(fallback !== undefined, `${type} has a fallback`);
  return columns % QUANT_BLOCKS[fallback].elements === 0 ? fallback : "f16";
}

const FALLBACKS: Readonly<Partial<Record<QuantType, QuantType>>> = {
  q6_K: "q8_0",
  q5_K: "q5_1",
  q4_K: "q5_0",
  q3_K: "q4_0",
  q2_K: "q4_0",
  iq4_xs: "iq4_nl",
  iq3_s: "iq4_nl",
  iq3_xxs: "iq4_nl",
  iq2_s: "iq4_nl",
  iq2_xs: "iq4_nl",
  iq2_xxs: "iq4_nl",
  iq1_m: "iq4_nl",
  iq1_s: "iq4_nl",
};
