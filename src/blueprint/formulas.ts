/**
 * The counting formulas of the basic layers, as terms that show where each number comes from. A term is a tensor, or
 * several equal ones; `countTerms` adds them. Sizes are numbers of channels, heads, experts or tokens.
 *
 * @example
 * countTerms(dense({ in: 768, out: 3072, bias: true })).total; // 2362368
 */

import type { ModuleCount } from "./counts.ts";
import { countElements, exactSum } from "./parameter.ts";

export interface Term {
  readonly name: string;
  readonly shape: readonly number[];
  /** How many equal tensors there are, 1 when absent, and how many of them one token uses, all when absent. */
  readonly times?: number;
  readonly active?: number;
}

/** A layer's terms added up: each term object counts once, so that a layer used several times is stored once. */
export function countTerms(terms: readonly Term[]): ModuleCount {
  const distinct = [...new Set(terms)];
  return {
    total: exactSum(distinct.map(({ shape, times = 1 }) => countElements(shape, times))),
    activated: exactSum(distinct.map(({ shape, times = 1, active = times }) => countElements(shape, active))),
  };
}

/** `out·in`, and `out` with a bias. */
export function dense(size: { in: number; out: number; bias: boolean }): Term[] {
  return linear("weight", size.out, size.in, size.bias);
}

/** `(kh·kw·in + 1)·out` with a bias. */
export function convolution(size: { height: number; width: number; in: number; out: number; bias: boolean }): Term[] {
  const kernel: Term = { name: "kernel", shape: [size.out, size.in, size.height, size.width] };
  return size.bias ? [kernel, { name: "bias", shape: [size.out] }] : [kernel];
}

export interface AttentionSize {
  readonly dim: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly bias: boolean;
}

/** `2·dim·heads·headDim + 2·dim·kvHeads·headDim`; one head alone is heads 1, full attention kvHeads = heads. */
export function attention({ dim, heads, kvHeads, headDim, bias }: AttentionSize): Term[] {
  return [
    ...linear("query", heads * headDim, dim, bias),
    ...linear("key", kvHeads * headDim, dim, bias),
    ...linear("value", kvHeads * headDim, dim, bias),
    ...linear("output", dim, heads * headDim, bias),
  ];
}

export interface LatentAttentionSize {
  readonly dim: number;
  readonly heads: number;
  /** 0 projects queries directly. */
  readonly qLoraRank: number;
  readonly kvLoraRank: number;
  readonly qkNopeHeadDim: number;
  readonly qkRopeHeadDim: number;
  readonly vHeadDim: number;
}

/**
 * `dim·q + q·heads·(nope+rope) + dim·(kv+rope) + kv·heads·(nope+v) + heads·v·dim`, and the norms q + kv.
 * **Source:** DeepSeek-V2 report 2.1.
 */
export function latentAttention(size: LatentAttentionSize): Term[] {
  const { dim, heads, qLoraRank, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = size;
  const queryRows = heads * (qkNopeHeadDim + qkRopeHeadDim);
  const query: Term[] =
    qLoraRank === 0
      ? [{ name: "wq", shape: [queryRows, dim] }]
      : [
          { name: "wq_a", shape: [qLoraRank, dim] },
          { name: "q_norm", shape: [qLoraRank] },
          { name: "wq_b", shape: [queryRows, qLoraRank] },
        ];
  return [
    ...query,
    { name: "wkv_a", shape: [kvLoraRank + qkRopeHeadDim, dim] },
    { name: "kv_norm", shape: [kvLoraRank] },
    { name: "wkv_b", shape: [heads * (qkNopeHeadDim + vHeadDim), kvLoraRank] },
    { name: "wo", shape: [dim, heads * vHeadDim] },
  ];
}

/** `3·dim·hidden`: gate and up projection, and the way back. */
export function gatedFeedForward({ dim, hidden }: { dim: number; hidden: number }): Term[] {
  return [
    { name: "w1", shape: [hidden, dim] },
    { name: "w2", shape: [dim, hidden] },
    { name: "w3", shape: [hidden, dim] },
  ];
}

/** `2·dim·hidden`, and hidden + dim with biases: the network of BERT and of vision transformers. */
export function feedForward({ dim, hidden, bias }: { dim: number; hidden: number; bias: boolean }): Term[] {
  return [...linear("fc1", hidden, dim, bias), ...linear("fc2", dim, hidden, bias)];
}

export interface MixtureSize {
  readonly dim: number;
  /** Hidden width of one expert. */
  readonly hidden: number;
  readonly experts: number;
  readonly activated: number;
  readonly shared: number;
  /** Whether the router has a selection bias. */
  readonly bias: boolean;
}

/** `(experts + shared)·3·dim·hidden + experts·dim`, of which a token uses `activated` experts. */
export function mixtureOfExperts({ dim, hidden, experts, activated, shared, bias }: MixtureSize): Term[] {
  const gate: Term = { name: "gate", shape: [experts, dim] };
  const routed = gatedFeedForward({ dim, hidden }).map((term) => ({
    ...term,
    name: `experts.${term.name}`,
    times: experts,
    active: activated,
  }));
  const always = gatedFeedForward({ dim, hidden: shared * hidden }).map((term) => ({
    ...term,
    name: `shared_experts.${term.name}`,
  }));
  return [gate, ...(bias ? [{ name: "gate.bias", shape: [experts] }] : []), ...routed, ...(shared > 0 ? always : [])];
}

/** `vocab·dim`, twice when the head is not tied, and `positions·dim` for learned positions; RoPE and ALiBi have none. */
export function embedding(size: { vocab: number; dim: number; tied: boolean; positions: number }): Term[] {
  const table: Term = { name: "embedding", shape: [size.vocab, size.dim] };
  const head = size.tied ? table : { name: "head", shape: [size.vocab, size.dim] };
  return [table, head, ...(size.positions > 0 ? [{ name: "positions", shape: [size.positions, size.dim] }] : [])];
}

/** Weight and bias of a LayerNorm. */
function layerNorm(name: string, dim: number): Term[] {
  return [
    { name, shape: [dim] },
    { name: `${name}.bias`, shape: [dim] },
  ];
}

/** Encoder layers with biases, of which ALBERT keeps one and uses it `layers` times. **Source:** Lan et al. 2019. */
export function encoderLayers(size: {
  dim: number;
  heads: number;
  hidden: number;
  layers: number;
  shared: boolean;
}): Term[] {
  const { dim, heads, hidden, layers, shared } = size;
  const layer = (): Term[] => [
    ...attention({ dim, heads, kvHeads: heads, headDim: dim / heads, bias: true }),
    ...layerNorm("attn_norm", dim),
    ...feedForward({ dim, hidden, bias: true }),
    ...layerNorm("ffn_norm", dim),
  ];
  const only = layer();
  return Array.from({ length: layers }, () => (shared ? only : layer())).flat();
}

export interface VisionSize {
  readonly width: number;
  readonly layers: number;
  readonly hidden: number;
  /** Side of a patch and of the image in pixels. */
  readonly patch: number;
  readonly image: number;
  /** Whether a learned query attends to all patches at the end. */
  readonly pooling: boolean;
}

/** A vision transformer over patches of a colour image, with biases and learned positions. */
export function visionTransformer({ width, layers, hidden, patch, image, pooling }: VisionSize): Term[] {
  const patches = Math.floor(image / patch) ** 2;
  const times = layers;
  const repeated = [
    ...layerNorm("blocks.norm1", width),
    ...linear("blocks.attn.qkv", 3 * width, width, true),
    ...linear("blocks.attn.proj", width, width, true),
    ...layerNorm("blocks.norm2", width),
    ...feedForward({ dim: width, hidden, bias: true }),
  ].map((term) => ({ ...term, times }));
  const pool = [
    { name: "pool.latent", shape: [width] },
    ...linear("pool.q", width, width, true),
    ...linear("pool.kv", 2 * width, width, true),
    ...linear("pool.proj", width, width, true),
    ...layerNorm("pool.norm", width),
    ...feedForward({ dim: width, hidden, bias: true }),
  ];
  return [
    ...convolution({ height: patch, width: patch, in: 3, out: width, bias: true }),
    { name: "positions", shape: [patches, width] },
    ...repeated,
    ...layerNorm("norm", width),
    ...(pooling ? pool : []),
  ];
}

/** Two layers from joined patches to the language model's width, and two embeddings that part rows and views. */
export function visionProjector({ in: inputs, dim }: { in: number; dim: number }): Term[] {
  return [
    ...linear("layers.0", dim, inputs, true),
    ...linear("layers.2", dim, dim, true),
    { name: "image_newline", shape: [dim] },
    { name: "view_seperator", shape: [dim] },
  ];
}

/** `rank·(in + out)` for a matrix. **Source:** LoRA (arXiv 2106.09685). */
export function lora({ in: inputs, out, rank }: { in: number; out: number; rank: number }): Term[] {
  return [
    { name: "lora_a", shape: [rank, inputs] },
    { name: "lora_b", shape: [out, rank] },
  ];
}

/** LoRA and a length for each output row. **Source:** DoRA (arXiv 2402.09353). */
export function dora(size: { in: number; out: number; rank: number }): Term[] {
  return [...lora(size), { name: "magnitude", shape: [size.out] }];
}

/** Down to the bottleneck and back. **Source:** Houlsby et al. 2019. */
export function adapter({ dim, bottleneck, bias }: { dim: number; bottleneck: number; bias: boolean }): Term[] {
  return [...linear("down", bottleneck, dim, bias), ...linear("up", dim, bottleneck, bias)];
}

export interface MaskCount {
  /** Weights that a product really uses. */
  readonly effective: number;
  /** Weights that stand in the file. */
  readonly stored: number;
  /** Bytes beside the weights that say where they belong. */
  readonly indexBytes: number;
}

/**
 * A matrix under a mask. Zeros take no less room unless the format leaves them out: `csr` keeps the others with a
 * 4-byte column each and an 8-byte start for each row; `2:4` keeps two of four with 2 bits each.
 *
 * @param density - share of weights that are not zero, in 0 to 1.
 */
export function maskedMatrix(size: {
  in: number;
  out: number;
  density: number;
  format: "dense" | "csr" | "2:4";
}): MaskCount {
  const all = countElements([size.in, size.out]);
  const effective = Math.round(all * size.density);
  switch (size.format) {
    case "dense":
      return { effective, stored: all, indexBytes: 0 };
    case "csr":
      return { effective, stored: effective, indexBytes: exactSum([effective * 4, (size.out + 1) * 8]) };
    case "2:4":
      return { effective: Math.min(effective, all / 2), stored: all / 2, indexBytes: all / 8 };
    default:
      return size.format satisfies never;
  }
}

function linear(name: string, out: number, inputs: number, bias: boolean): Term[] {
  const weight: Term = { name, shape: [out, inputs] };
  return bias ? [weight, { name: `${name}.bias`, shape: [out] }] : [weight];
}
