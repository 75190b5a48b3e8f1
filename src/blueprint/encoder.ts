/**
 * BERT's encoder: learned positions and token types, then layers of full attention and a GELU network, both with biases
 * and a LayerNorm behind them, and a pooler over the first token. **Source:** Devlin et al. 2018.
 */

import type { ModelConfig } from "../config/index.ts";
import { layerNorm, linear } from "./biased.ts";
import { COLUMN, matrix, ROW, type Module } from "./parameter.ts";

const TOKEN_TYPES = 2;

export function encoder(model: ModelConfig, layers: readonly number[]): Module {
  const { dim, vocabSize, maxSeqLen } = model;
  const table = (name: string, rows: number) => matrix(model, name, "embedding", [rows, dim], { storage: "plain" });
  return {
    name: "",
    parameters: [
      { ...table("embed", vocabSize), shardAxes: COLUMN },
      table("embed.position", maxSeqLen),
      table("embed.token_type", TOKEN_TYPES),
      ...layerNorm("embed_norm", "norms", dim),
      ...linear(model, "pooler", "head", [dim, dim]),
    ],
    children: layers.map((n) => encoderLayer(model, `layers.${n}`)),
  };
}

function encoderLayer(model: ModelConfig, name: string): Module {
  const { dim, interDim, nHeads, nKvHeads, headDim } = model;
  return {
    name,
    parameters: [
      ...linear(model, `${name}.attn.wq`, "attention", [nHeads * headDim, dim], COLUMN),
      ...linear(model, `${name}.attn.wk`, "attention", [nKvHeads * headDim, dim], COLUMN),
      ...linear(model, `${name}.attn.wv`, "attention", [nKvHeads * headDim, dim], COLUMN),
      ...linear(model, `${name}.attn.wo`, "attention", [dim, nHeads * headDim], ROW),
      ...layerNorm(`${name}.attn_norm`, "norms", dim),
      ...linear(model, `${name}.ffn.w1`, "dense_ffn", [interDim, dim], COLUMN),
      ...linear(model, `${name}.ffn.w2`, "dense_ffn", [dim, interDim], ROW),
      ...layerNorm(`${name}.ffn_norm`, "norms", dim),
    ],
    children: [],
  };
}
