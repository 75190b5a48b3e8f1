/** The `fathom plan` command that makes the prediction of a launch once more, to which `--why NAME` is added. */

import type { ModelConfig } from "../../config/index.ts";
import { ASSUMED } from "../assumptions.ts";
import { CALIBRATED_ENGINES } from "../efficiency.ts";
import { worldSize, type Layout } from "../layout.ts";
import type { LocalLaunch, ServingLaunch, TrainingLaunch } from "./launch.ts";
import type { PredictionRequest } from "./prediction.ts";
import type { Phrase } from "./shell.ts";

/** Options that are given; the others are left out. */
function options(values: Readonly<Record<string, string | number | undefined>>): string[] {
  return Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}`, String(value)]));
}

function named({ modelName, planArguments = [modelName] }: PredictionRequest): readonly string[] {
  return planArguments;
}

export function trainingCommand(request: PredictionRequest<TrainingLaunch>): Phrase {
  const { device, engine, model, job, margin = ASSUMED.memoryMargin } = request;
  const { layout, precision, training } = job;
  const { globalBatchSize, seqLen } = layout;
  return [
    "plan",
    ...named(request),
    ...options({ gpus: `${worldSize(layout)}x${device.name}`, ...degrees(layout) }),
    ...options({ "global-batch": globalBatchSize, seq: seqLen, precision: precision.name, margin }),
    ...options({ engine: CALIBRATED_ENGINES.includes(engine) ? engine : undefined }),
    ...(model.nMtpLayers === 0 ? ["--no-mtp"] : []),
    ...options({ tokens: training.steps * globalBatchSize * seqLen }),
  ];
}

function degrees(layout: Layout): Record<string, string | number | undefined> {
  const { tp, pp, vp, cp, ep, etp, dp, zero, recompute, microBatchSize, schedule } = layout;
  // What has virtual stages is interleaved.
  const order = schedule === "interleaved" ? undefined : schedule;
  return { tp, pp, vp, cp, ep, etp, dp, zero, recompute, "micro-batch": microBatchSize, schedule: order };
}

/** Format in which an engine serves the weights. */
export function servedWeights({ dtype }: ModelConfig): "fp8" | "bf16" {
  return dtype === "fp8" ? "fp8" : "bf16";
}

export function servingCommand(request: PredictionRequest<ServingLaunch>): Phrase {
  const { device, model, job, margin = ASSUMED.memoryMargin } = request;
  const { tp, dp, kvCache, maxSequences, contextTokens, draftTokens } = job;
  return [
    "plan",
    "serve",
    ...named(request),
    ...options({ gpus: `${tp * dp}x${device.name}`, tp, weights: servedWeights(model), kv: kvCache }),
    ...options({ batch: maxSequences, context: contextTokens, drafts: draftTokens, margin }),
  ];
}

export function localCommand(request: PredictionRequest<LocalLaunch>): Phrase {
  const { device, job, margin = ASSUMED.memoryMargin } = request;
  const { machine, mix, contextTokens, maxSequences } = job;
  const gib = (bytes: number): string => `${bytes / 2 ** 30}GiB`;
  return [
    "plan",
    "fit",
    ...named(request),
    ...options({ vram: gib(machine.vramBytes), ram: gib(machine.ramBytes), gpu: device.name, quant: mix }),
    ...options({ "ram-bandwidth": machine.ramBytesPerSec / 1e9, context: contextTokens * maxSequences, margin }),
  ];
}
