/**
 * The tensors of a model's GGUF file as llama.cpp's converter writes them: names, widths and order. The projection
 * from the latent is split into its key and value halves, expert stacks stay stacked, MTP layers are left out.
 *
 * **Source:** llama.cpp v0.5.0, conversion/deepseek.py and src/llama-model-loader.h (order).
 */

import { countElements, ggufNames, type Blueprint, type ParameterSpec } from "../blueprint/index.ts";

/** Where a local run keeps a tensor and how often a token reads it. */
export type GgufRole = "embedding" | "expert" | "attention" | "other";

export interface GgufTensor {
  /** `blk.3.ffn_down_exps.weight`. */
  readonly name: string;
  /** Layer of `blk.N`, −1 outside the layers. */
  readonly layer: number;
  /** Values in one row (ne[0]), which must hold whole blocks. */
  readonly columns: number;
  readonly elements: number;
  /** Dimensions above 1, which decides whether it may be quantised. */
  readonly dims: number;
  readonly role: GgufRole;
  /** Share of the elements that one token uses. */
  readonly activeShare: number;
}

/**
 * Every tensor of the file in llama.cpp's order: by layer, then by name.
 *
 * @throws UnsupportedError for a part that GGUF has no name for.
 */
export function ggufTensors({ model, root, parameters }: Blueprint): GgufTensor[] {
  const main = parameters.filter(({ mtp }) => !mtp);
  const byName = new Map(main.map((parameter) => [parameter.name, parameter]));
  return ggufNames({ model, root, parameters: main }, { splitKvB: true })
    .map(({ name, shape, parameters: [own] }) => tensorOf(name, shape, byName.get(own!)!))
    .toSorted((a, b) => a.layer - b.layer || (a.name < b.name ? -1 : 1));
}

function tensorOf(name: string, shape: readonly number[], parameter: ParameterSpec): GgufTensor {
  return {
    name,
    layer: Number(/^blk\.(\d+)\./.exec(name)?.[1] ?? -1),
    columns: shape.at(-1)!,
    elements: countElements(shape),
    dims: shape.length,
    role: roleOf(parameter),
    activeShare: parameter.activeShare,
  };
}

function roleOf({ group }: ParameterSpec): GgufRole {
  if (group === "embedding") return "embedding";
  if (group === "routed_experts") return "expert";
  return group === "attention" ? "attention" : "other";
}
