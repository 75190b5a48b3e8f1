/**
 * How close engines come to the peak: coefficients per engine, device, format and family, at most two of them fitted on
 * published runs. A preset that rests on one run is that run's implied efficiency: calibration, no claim.
 */

import { ASSUMED } from "./assumptions.ts";
import type { Cluster } from "./cluster.ts";
import type { PeakFormat } from "./hardware.ts";
import { percent } from "./percent.ts";

export type Family = "dense" | "moe";

export interface Efficiency {
  /** Share of the dense peak that matrix products reach. */
  readonly computeShare: number;
  /** Share of communication that runs behind computation; tensor parallelism's never does. */
  readonly hiddenShare: number;
  /** Share of the memory's peak rate that what is no product reaches; `ASSUMED.memoryShare` unless it was fitted. */
  readonly memoryShare?: number;
  /** The published run it was fitted on, or what it is assumed from. */
  readonly basis: string;
  /** False for a general assumption. */
  readonly calibrated: boolean;
  /** Factors of an assumed `computeShare`. */
  readonly assumed?: Readonly<Record<string, { readonly value: number; readonly meaning: string }>>;
}

interface EfficiencyPreset extends Omit<Efficiency, "calibrated" | "assumed"> {
  readonly engine: string;
  readonly device: string;
  readonly format: PeakFormat;
  readonly family: Family;
}

export interface EfficiencyQuery {
  readonly engine?: string | undefined;
  readonly cluster: Cluster;
  readonly format: PeakFormat;
  readonly family: Family;
}

/** The preset of the engine that is asked for; without one, the device's measured share of large products. */
export function efficiencyFor({ engine, cluster, format, family }: EfficiencyQuery): Efficiency {
  const { device } = cluster;
  const preset = EFFICIENCY_PRESETS.find(
    (row) => row.device === device.name && row.format === format && row.family === family && row.engine === engine,
  );
  if (preset !== undefined) {
    const { computeShare, hiddenShare, memoryShare = ASSUMED.memoryShare, basis } = preset;
    return { computeShare, hiddenShare, memoryShare, basis: `${preset.engine}: ${basis}`, calibrated: true };
  }
  const { matmulShare = ASSUMED.matmulShare } = device;
  const { modelShapeShare, hiddenShare } = ASSUMED;
  const measured = device.matmulShare === undefined ? "assumed" : "measured";
  return {
    computeShare: matmulShare * modelShapeShare,
    hiddenShare,
    basis:
      `no published run for ${device.title} in ${format}: ${percent(modelShapeShare)} of its share of large products, ` +
      `${percent(hiddenShare)} of communication hidden`,
    calibrated: false,
    assumed: {
      matmul_share: { value: matmulShare, meaning: `share of the peak that large products reach (${measured})` },
      model_shape_share: { value: modelShapeShare, meaning: "products of a model against those (an assumption)" },
    },
  };
}

/** Fitted with this planner's own step time; `npm run validate:planner` shows the errors on the runs not fitted. */
const EFFICIENCY_PRESETS: readonly EfficiencyPreset[] = [
  {
    engine: "deepseek",
    device: "h800",
    format: "fp8",
    family: "moe",
    computeShare: 0.4,
    hiddenShare: 1,
    basis:
      "DeepSeek-V3 report: 1,543 tokens/s on each of 2,048, taken as micro-batches of one sequence, selective recomputation and all communication hidden by DualPipe",
  },
  {
    engine: "automodel",
    device: "h100",
    format: "bf16",
    family: "moe",
    computeShare: 0.43,
    hiddenShare: ASSUMED.hiddenShare,
    basis:
      "NeMo Automodel, DeepSeek-V3 on 1,024 devices in 37.87 s a step, taken as PP4 VP8 EP64, full recomputation, no MTP and the assumed share of communication hidden",
  },
  {
    engine: "megatron",
    device: "a100",
    format: "bf16",
    family: "dense",
    computeShare: 0.78,
    hiddenShare: ASSUMED.hiddenShare,
    memoryShare: 0.46,
    basis: "Korthikanti et al. 2022, GPT 22B on 8 and 1T on 512 devices",
  },
  {
    engine: "megatron",
    device: "h100",
    format: "bf16",
    family: "dense",
    computeShare: 0.59,
    hiddenShare: ASSUMED.hiddenShare,
    basis: "Llama 3 report, 405B on 8,192 devices at 430 TFLOP/s",
  },
  {
    engine: "torchtitan",
    device: "h100-96gb",
    format: "bf16",
    family: "dense",
    computeShare: 0.39,
    hiddenShare: 1,
    basis: "torchtitan benchmarks, Llama 3 8B compiled on 8 devices",
  },
  {
    engine: "torchtitan",
    device: "h100-96gb",
    format: "fp8",
    family: "dense",
    computeShare: 0.31,
    hiddenShare: 1,
    basis: "torchtitan benchmarks, Llama 3 8B compiled with fp8 on 8 devices",
  },
];

/** Engines that a preset exists for. */
export const CALIBRATED_ENGINES: readonly string[] = [...new Set(EFFICIENCY_PRESETS.map(({ engine }) => engine))];
