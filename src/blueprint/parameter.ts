/** What the blueprint says about one parameter, and the module that holds it. */

/** The row of a count in which a parameter appears. `mtp` is the projection that only MTP has. */
export const GROUPS = [
  "embedding",
  "head",
  "attention",
  "dense_ffn",
  "routed_experts",
  "shared_experts",
  "gates",
  "norms",
  "mtp",
] as const;

export type ParameterGroup = (typeof GROUPS)[number];

export type Init =
  | { readonly kind: "normal"; readonly std: number }
  | { readonly kind: "ones" }
  | { readonly kind: "zeros" };

/** Axes of the shape along which a parameter can be cut: over tensor-parallel ranks, over expert-parallel ranks. */
export interface ShardAxes {
  readonly tensor?: number;
  readonly expert?: number;
}

export interface ParameterSpec {
  /** Dotted name, unique in the model: `layers.3.attn.wkv_a`. */
  readonly name: string;
  readonly shape: readonly number[];
  readonly init: Init;
  /** Trained by gradient; changed by other means (the router's bias); or a scale of quantised weights. */
  readonly kind: "trainable" | "buffer" | "scale";
  readonly group: ParameterGroup;
  /** Share of the elements that one token uses. */
  readonly activeShare: number;
  /** Whether AdamW decays it. */
  readonly decay: boolean;
  readonly shardAxes: ShardAxes;
  /** Whether it belongs to an MTP layer. */
  readonly mtp: boolean;
}

export interface Module {
  /** Dotted name; empty for the whole model. */
  readonly name: string;
  readonly parameters: readonly ParameterSpec[];
  readonly children: readonly Module[];
}

export function countElements(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}
