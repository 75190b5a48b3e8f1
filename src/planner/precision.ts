/**
 * Precision recipes: bytes that one parameter takes as weight, gradient, master copy and moments, and the format in
 * which its products are computed.
 *
 * **Source:** Megatron-Core distributed optimizer (18 bytes a parameter, 6 + 12/D sharded); ZeRO paper (16 bytes);
 * DeepSeek-V3 report 3.3 (bf16 moments, fp8 products and dispatch); QLoRA paper (nf4 with double quantisation).
 */

import { ConfigError, nearest } from "../core/errors.ts";
import type { PeakFormat } from "./hardware.ts";

export interface PrecisionRecipe {
  readonly name: string;
  /** Format of the matrix products, which sets the peak. */
  readonly compute: PeakFormat;
  /** Bytes of one parameter: weight (all copies that stay), gradient, float32 master, first and second moment. */
  readonly weightBytes: number;
  readonly gradBytes: number;
  readonly masterBytes: number;
  readonly momentBytes: number;
  readonly secondMomentBytes: number;
  /** Bytes of an activation that is kept for backward. */
  readonly activationBytes: number;
  /** Other widths by the activation's name, scales included; 0 for what this recipe never keeps. */
  readonly keptBytes?: Readonly<Record<string, number>>;
  /** Bytes of one element that is sent to an expert, scales included. */
  readonly dispatchBytes: number;
  readonly source: string;
}

/** One float32 scale for 128 elements of one byte. */
const FP8_WITH_SCALES = 1 + 4 / 128;

/** E5M6 with one scale for 128 elements, a power of two that takes a byte. */
const E5M6_WITH_SCALES = 12 / 8 + 1 / 128;

/**
 * What the fp8 recipe keeps for backward: inputs of its linear layers and of SwiGLU in fp8, the input of the linear
 * layer after attention in E5M6. The expert's output is not among what the report keeps: the gate's gradient comes from
 * SwiGLU's output, as where the gate multiplies before the second matrix. The rest is bf16.
 *
 * **Source:** DeepSeek-V3 report 3.3.3. The expert's output is an assumption (Megatron-Core multiplies there).
 */
const DEEPSEEK_KEPT: Readonly<Record<string, number>> = {
  ...Object.fromEntries(
    [
      ...["norm", "q_norm", "kv_norm", "ffn_norm", "routed_in"],
      ...["gate_up", "shared_gate_up", "routed_gate_up", "product", "shared_product", "routed_product"],
    ].map((name) => [name, FP8_WITH_SCALES]),
  ),
  attention_out: E5M6_WITH_SCALES,
  routed_out: 0,
};

/** nf4: half a byte, an 8-bit scale for 64 elements, a float32 scale for 256 of those. */
export const NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256);

/** Scales of fp8 and int8, one for many elements, are left out. */
const FROZEN_BYTES: Readonly<Record<string, number>> = { bf16: 2, fp8: 1, int8: 1, nf4: NF4_BYTES };

/** Bytes of a frozen weight below adapters. @throws ConfigError for an unknown format. */
export function frozenWeightBytes(format: string): number {
  const bytes = FROZEN_BYTES[format];
  if (bytes !== undefined) return bytes;
  throw new ConfigError("--frozen", `must be one of ${Object.keys(FROZEN_BYTES).join(", ")}`, format);
}

const BF16: Omit<PrecisionRecipe, "name" | "source"> = {
  compute: "bf16",
  weightBytes: 2,
  gradBytes: 4,
  masterBytes: 4,
  momentBytes: 4,
  secondMomentBytes: 4,
  activationBytes: 2,
  dispatchBytes: 2,
};

const MEGATRON = "Megatron-Core, distributed optimizer";

export const PRECISION_RECIPES: readonly PrecisionRecipe[] = [
  { ...BF16, name: "bf16", source: MEGATRON },
  { ...BF16, name: "bf16-bf16-grads", gradBytes: 2, source: "Rajbhandari et al. 2020, ZeRO" },
  {
    ...BF16,
    name: "bf16-bf16-moments",
    momentBytes: 2,
    secondMomentBytes: 2,
    source: "Megatron-Core, precision-aware optimizer",
  },
  {
    ...BF16,
    name: "fp8",
    compute: "fp8",
    momentBytes: 2,
    secondMomentBytes: 2,
    dispatchBytes: FP8_WITH_SCALES,
    keptBytes: DEEPSEEK_KEPT,
    source: "DeepSeek-V3 report 3.3; weight and its transposed copy one byte each",
  },
  { ...BF16, name: "fp8-bf16-states", compute: "fp8", source: "fp8 products on bf16 weights and activations" },
  { ...BF16, name: "fp16", compute: "fp16", gradBytes: 6, source: "Megatron-Core, fp16 and float32 main gradients" },
  {
    ...BF16,
    name: "fp32",
    compute: "fp32",
    weightBytes: 4,
    masterBytes: 0,
    activationBytes: 4,
    dispatchBytes: 4,
    source: "weights are their own master copy",
  },
  { ...BF16, name: "adam-8bit", momentBytes: 1, secondMomentBytes: 1, source: "bitsandbytes 8-bit Adam" },
  { ...BF16, name: "lion", secondMomentBytes: 0, source: "Chen et al. 2023: one moment" },
  { ...BF16, name: "muon", secondMomentBytes: 0, source: "Jordan et al. 2024: one moment" },
];

/** @throws ConfigError with the nearest name. */
export function precisionRecipe(name: string): PrecisionRecipe {
  const found = PRECISION_RECIPES.find((recipe) => recipe.name === name);
  if (found !== undefined) return found;
  const names = PRECISION_RECIPES.map((recipe) => recipe.name);
  const close = nearest(name, names);
  throw new ConfigError("precision", `must be one of ${names.join(", ")}`, name, close && `did you mean ${close}?`);
}
