/** Shapes of the published models that have no preset: GPT with MHA and GELU, LLaMA with GQA and SwiGLU. */

import { resolveConfig } from "../../config/index.ts";
import { invariant } from "../../core/errors.ts";
import { modelShape, withoutMtp, type LayerKind, type ModelShape, type PlanParameter } from "../shape.ts";

interface DenseModel {
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly hidden: number;
  readonly vocab: number;
}

/** **Source:** meta-llama/Llama-3.1-* config.json. */
const LLAMAS: Readonly<Record<string, DenseModel>> = {
  "llama3-8b": { dim: 4096, layers: 32, heads: 32, kvHeads: 8, hidden: 14_336, vocab: 128_256 },
  "llama3-70b": { dim: 8192, layers: 80, heads: 64, kvHeads: 8, hidden: 28_672, vocab: 128_256 },
  "llama3-405b": { dim: 16_384, layers: 126, heads: 128, kvHeads: 8, hidden: 53_248, vocab: 128_256 },
};

const gpt = (dim: number, layers: number, heads: number): DenseModel => ({
  ...{ dim, layers, heads, kvHeads: heads },
  ...{ hidden: 4 * dim, vocab: 51_200 },
});

/** **Source:** Korthikanti et al. 2022, table 3. */
const GPTS: Readonly<Record<string, DenseModel>> = {
  "gpt-22b": gpt(6144, 48, 64),
  "gpt-175b": gpt(12_288, 96, 96),
  "gpt-530b": gpt(20_480, 105, 128),
  "gpt-1t": gpt(25_600, 128, 160),
};

const vector = (name: string, elements: number): PlanParameter => ({
  ...{ name, elements, tensor: false, expert: false },
  ...{ kind: "trainable", activeShare: 1, matrix: undefined },
});

const matrix = (name: string, out: number, inner: number): PlanParameter => ({
  ...vector(name, out * inner),
  ...{ tensor: true, matrix: [out, inner] },
});

/** The shape of a published model: of the tables above, or a preset; `mtp` keeps its MTP layers. */
export function publishedShape(name: string, mtp = false): ModelShape {
  const [llama, gptModel] = [LLAMAS[name], GPTS[name]];
  if (llama !== undefined) return denseShape(llama, llamaLayer(llama));
  if (gptModel !== undefined) return denseShape(gptModel, gptLayer(gptModel));
  const shape = modelShape(resolveConfig(name).model);
  return mtp ? shape : withoutMtp(shape);
}

function denseShape({ dim, layers, heads, hidden, vocab }: DenseModel, kind: LayerKind): ModelShape {
  return {
    nLayers: layers,
    nHeads: heads,
    ffnWidths: [hidden],
    nRoutedExperts: 0,
    moeInterDim: 0,
    dim,
    vocabSize: vocab,
    kinds: [kind],
    layers: Array.from({ length: layers }, () => 0),
    nMtpLayers: 0,
    front: [matrix("embed", vocab, dim)],
    back: [vector("norm", dim), matrix("head", vocab, dim)],
    tied: false,
  };
}

function llamaLayer({ dim, heads, kvHeads, hidden }: DenseModel): LayerKind {
  const headDim = dim / heads;
  return {
    name: "dense",
    attention: { kind: "gqa", nHeads: heads, nKvHeads: kvHeads, headDim },
    ffn: { kind: "swiglu", width: hidden },
    parameters: [
      matrix("attn.wq", dim, dim),
      matrix("attn.wk", kvHeads * headDim, dim),
      matrix("attn.wv", kvHeads * headDim, dim),
      matrix("attn.wo", dim, dim),
      ...[matrix("ffn.w1", hidden, dim), matrix("ffn.w2", dim, hidden), matrix("ffn.w3", hidden, dim)],
      ...[vector("attn_norm", dim), vector("ffn_norm", dim)],
    ],
  };
}

/** The matrices alone: 12·h² a layer, as the paper counts. */
function gptLayer({ dim, heads, hidden }: DenseModel): LayerKind {
  return {
    name: "dense",
    attention: { kind: "unfused", nHeads: heads, nKvHeads: heads, headDim: dim / heads },
    ffn: { kind: "gelu", width: hidden },
    parameters: [
      ...[matrix("attn.wq", dim, dim), matrix("attn.wk", dim, dim), matrix("attn.wv", dim, dim)],
      ...[matrix("attn.wo", dim, dim), matrix("ffn.w1", hidden, dim), matrix("ffn.w2", dim, hidden)],
    ],
  };
}

/** A model's layers without embedding, final norm and head, as published memory of K22 counts them. */
export function layersOnly(shape: ModelShape): ModelShape {
  invariant(shape.nMtpLayers === 0, "a shape of layers alone has no MTP");
  return { ...shape, front: [], back: [] };
}
