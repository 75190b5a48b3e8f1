/**
 * Formats in which an inference engine keeps weights: bytes of one element, scales included. Embedding, head, router
 * and norms stay in bf16 in all of them, as in the published checkpoints.
 *
 * **Source:** DeepSeek-V3 checkpoint (fp8, a float32 scale for 128×128); OCP MX and NVFP4 (a scale byte for 32 and 16).
 */

import { ConfigError, nearest } from "../core/errors.ts";
import type { PeakFormat } from "./hardware.ts";

export interface WeightFormat {
  readonly name: string;
  /** Bytes of one element of a matrix outside the experts, and of an expert's. */
  readonly matrixBytes: number;
  readonly expertBytes: number;
  /** Format in which the products are computed. */
  readonly compute: PeakFormat;
}

const FP8 = 1 + 4 / (128 * 128);
const INT4 = 0.5 + 2 / 128;
const MXFP4 = 0.5 + 1 / 32;
const NVFP4 = 0.5 + 1 / 16;

const WEIGHT_FORMATS: readonly WeightFormat[] = [
  { name: "bf16", matrixBytes: 2, expertBytes: 2, compute: "bf16" },
  { name: "fp8", matrixBytes: FP8, expertBytes: FP8, compute: "fp8" },
  { name: "int8", matrixBytes: 1, expertBytes: 1, compute: "int8" },
  { name: "int4", matrixBytes: INT4, expertBytes: INT4, compute: "bf16" },
  { name: "fp8-mxfp4-experts", matrixBytes: FP8, expertBytes: MXFP4, compute: "fp8" },
  { name: "mxfp4", matrixBytes: MXFP4, expertBytes: MXFP4, compute: "fp4" },
  { name: "nvfp4", matrixBytes: NVFP4, expertBytes: NVFP4, compute: "fp4" },
];

/** @throws ConfigError with the nearest name. */
export function weightFormat(name: string): WeightFormat {
  const found = WEIGHT_FORMATS.find((format) => format.name === name);
  if (found !== undefined) return found;
  const names = WEIGHT_FORMATS.map((format) => format.name);
  const close = nearest(name, names);
  throw new ConfigError("weights", `must be one of ${names.join(", ")}`, name, close && `did you mean ${close}?`);
}
