/**
 * The eyes of VL2: SigLIP so400m with patches of 14 on 384 × 384 pixels and its pooling head, then a projector that
 * joins 2 × 2 patches into one token. Parameters have the names of the checkpoint.
 *
 * **Source:** deepseek-ai/DeepSeek-VL2 deepseek_vl2/models/siglip_vit.py and modeling_deepseek_vl_v2.py.
 */

import type { ModelConfig } from "../config/index.ts";
import { layerNorm, linear } from "./biased.ts";
import { matrix, type Module, type ParameterSpec } from "./parameter.ts";

/** Widths in channels, `image` and `patch` in pixels. */
const SIGLIP_SO400M = { width: 1152, layers: 27, hidden: 4304, patch: 14, image: 384, colours: 3 } as const;

/** Patches that the projector joins into one token. */
const PATCHES_PER_TOKEN = 4;

export function visionTower(model: ModelConfig): Module {
  const { width, layers, patch, image, colours } = SIGLIP_SO400M;
  const name = "vision";
  const patches = Math.floor(image / patch) ** 2;
  const [kernel, bias] = linear(model, `${name}.patch_embed.proj`, "vision", [width, colours * patch ** 2]);
  return {
    name,
    parameters: [
      { ...kernel!, shape: [width, colours, patch, patch] },
      bias!,
      table(model, `${name}.pos_embed`, [1, patches, width]),
      ...layerNorm(`${name}.norm`, "vision", width),
    ],
    children: [
      ...Array.from({ length: layers }, (_, n) => block(model, `${name}.blocks.${n}`)),
      poolingHead(model, `${name}.attn_pool`),
    ],
  };
}

function block(model: ModelConfig, name: string): Module {
  const { width } = SIGLIP_SO400M;
  return {
    name,
    parameters: [
      ...layerNorm(`${name}.norm1`, "vision", width),
      ...linear(model, `${name}.attn.qkv`, "vision", [3 * width, width]),
      ...linear(model, `${name}.attn.proj`, "vision", [width, width]),
      ...layerNorm(`${name}.norm2`, "vision", width),
      ...mlp(model, `${name}.mlp`),
    ],
    children: [],
  };
}

/** One learned query that attends to all patches. */
function poolingHead(model: ModelConfig, name: string): Module {
  const { width } = SIGLIP_SO400M;
  return {
    name,
    parameters: [
      table(model, `${name}.latent`, [1, 1, width]),
      ...linear(model, `${name}.q`, "vision", [width, width]),
      ...linear(model, `${name}.kv`, "vision", [2 * width, width]),
      ...linear(model, `${name}.proj`, "vision", [width, width]),
      ...layerNorm(`${name}.norm`, "vision", width),
      ...mlp(model, `${name}.mlp`),
    ],
    children: [],
  };
}

function mlp(model: ModelConfig, name: string): ParameterSpec[] {
  const { width, hidden } = SIGLIP_SO400M;
  return [
    ...linear(model, `${name}.fc1`, "vision", [hidden, width]),
    ...linear(model, `${name}.fc2`, "vision", [width, hidden]),
  ];
}

function table(model: ModelConfig, name: string, shape: readonly number[]): ParameterSpec {
  return { ...matrix(model, name, "vision", shape, { storage: "plain" }), decay: false };
}

/** Two layers, and the embeddings that end a row of patches and part the views. */
export function projector(model: ModelConfig): Module {
  const { dim } = model;
  const mark = (name: string): ParameterSpec => ({
    ...matrix(model, name, "projector", [dim], { storage: "plain" }),
    decay: false,
  });
  return {
    name: "projector",
    parameters: [
      ...linear(model, "projector.layers.0", "projector", [dim, PATCHES_PER_TOKEN * SIGLIP_SO400M.width]),
      ...linear(model, "projector.layers.2", "projector", [dim, dim]),
      mark("image_newline"),
      mark("view_seperator"),
    ],
    children: [],
  };
}
