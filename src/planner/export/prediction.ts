/** What the planner predicts for a launch, as rows for PLAN.md, and the refusal of what does not fit. */

import { blueprint } from "../../blueprint/index.ts";
import type { ModelConfig } from "../../config/index.ts";
import { MemoryError } from "../../core/errors.ts";
import { ASSUMED } from "../assumptions.ts";
import { engineEvaluator } from "../engine-evaluator.ts";
import type { Device } from "../hardware.ts";
import { planInference, type InferencePlan } from "../inference.ts";
import { worldSize } from "../layout.ts";
import { planLocal, type LocalPlan } from "../local-run.ts";
import { percent } from "../percent.ts";
import type { PrecisionRecipe } from "../precision.ts";
import { modelShape } from "../shape.ts";
import { summarise, type TrainingSummary } from "../summary.ts";
import { MEMORY_PARTS } from "../training.ts";
import type { Launch, LocalLaunch, ServingLaunch, TrainingLaunch } from "./launch.ts";
import { localCommand, servedWeights, servingCommand, trainingCommand } from "./plan-command.ts";
import type { Prediction, PredictionRow } from "./plan-page.ts";

/** A launch to predict; `margin` is the share of a memory that may be planned. */
export interface PredictionRequest<J extends Launch = Launch> {
  readonly engine: string;
  readonly modelName: string;
  readonly planArguments?: readonly string[] | undefined;
  readonly model: ModelConfig;
  readonly device: Device;
  readonly job: J;
  readonly margin?: number | undefined;
}

/** @throws MemoryError when the plan does not fit. */
export function predict(request: PredictionRequest): Prediction {
  const { job } = request;
  switch (job.kind) {
    case "train":
      return predictTraining({ ...request, job });
    case "serve":
      return predictServing({ ...request, job });
    case "local":
      return predictLocal({ ...request, job });
    default:
      return job satisfies never;
  }
}

function predictTraining(request: PredictionRequest<TrainingLaunch>): Prediction {
  const { model, device, engine, job, margin = ASSUMED.memoryMargin } = request;
  const { layout, precision } = job;
  const shape = modelShape(model);
  const cluster = { device, count: worldSize(layout) };
  const evaluator = engineEvaluator({ shape, recipe: precision, cluster, engine, margin });
  const plan = evaluator.evaluate(layout);
  checkFits(
    "memory of one device",
    plan.memoryBytes,
    evaluator.limitBytes,
    "raise recompute, zero, pp or ep, or take more devices",
  );
  const parts = evaluator.memoryParts(layout);
  const tokens = layout.globalBatchSize * layout.seqLen;
  const rows: PredictionRow[] = [
    [
      "Memory of the fullest device",
      `${inGib(plan.memoryBytes)} of ${inGib(device.memoryBytes)} (limit ${percent(margin)})`,
      "memory.total",
    ],
    ...MEMORY_PARTS.filter((part) => parts[part] > 0).map((part): PredictionRow => [
      `· ${part}`,
      inGib(parts[part]),
      `memory.${part}`,
    ]),
    ["Step", seconds(plan.stepSec), "time.step"],
    ["· work", seconds(plan.workSec), "time.work"],
    ["· pipeline bubble", seconds(plan.bubbleSec), "time.bubble"],
    ["· data-parallel communication", seconds(plan.dataParallelSec), "time.data_parallel"],
    ["· optimizer", seconds(plan.optimizerSec), "time.optimizer"],
    ["Tokens per second, all devices", rate(tokens / plan.stepSec), "run.rate"],
    ["Model FLOPs utilisation", utilisation(summarise(evaluator, plan), precision), "run.mfu"],
    [`Whole run, ${job.training.steps} steps`, duration(plan.stepSec * job.training.steps), "bill.seconds"],
    ["Efficiency", evaluator.job.efficiency.basis, "compute_share"],
  ];
  return { rows, command: trainingCommand(request) };
}

/** Model FLOPs over the peak of `run.mfu`, as in every other report. */
function utilisation({ mfu, peakFlopsPerSec }: TrainingSummary, { compute }: PrecisionRecipe): string {
  const peak = compute === "fp32" ? "fp32" : "bf16";
  return `${percent(mfu)} of the ${peak} peak, ${((mfu * peakFlopsPerSec) / 1e12).toFixed(0)} TFLOP/s a device`;
}

function predictServing(request: PredictionRequest<ServingLaunch>): Prediction {
  const { model, device, job, margin = ASSUMED.memoryMargin } = request;
  const reason = notPredictable(request);
  if (reason !== undefined) return { rows: [["Not predicted", reason]] };
  const plan = planInference(modelShape(model), device, {
    weights: servedWeights(model),
    kv: job.kvCache,
    devices: job.tp * job.dp,
    tp: job.tp,
    batch: job.maxSequences,
    context: job.contextTokens,
    drafts: job.draftTokens,
  });
  checkFits(
    "memory of one device",
    plan.totalBytes,
    device.memoryBytes * margin,
    "take more devices, fewer requests or a shorter context",
  );
  return { rows: servingRows(plan, device, job, margin), command: servingCommand(request) };
}

function notPredictable({ device, job }: PredictionRequest<ServingLaunch>): string | undefined {
  const linked = device.link?.devices ?? 1;
  if (job.pp > 1) return "the inference planner has no pipeline stages";
  if (job.tp > linked) return `tp ${job.tp} is more than the ${linked} devices that one link joins`;
  return undefined;
}

function servingRows(plan: InferencePlan, device: Device, job: ServingLaunch, margin: number): PredictionRow[] {
  return [
    [
      "Memory of one device",
      `${inGib(plan.totalBytes)} of ${inGib(device.memoryBytes)} (limit ${percent(margin)})`,
      "memory.total",
    ],
    ...plan.memory
      .filter(({ bytes }) => bytes > 0)
      .map(({ name, meaning, bytes }): PredictionRow => [`· ${meaning}`, inGib(bytes), name]),
    ["Cache of one token", `${plan.kvTokenBytes} bytes on one device`, "kv.token"],
    [
      `Decode, ${job.maxSequences} requests at ${job.contextTokens} tokens`,
      `${rate(plan.decode.tokensPerSec)}, all devices`,
      "decode.all",
    ],
    ["Between two tokens", `${(plan.decode.tpotSeconds * 1e3).toFixed(1)} ms`, "decode.tpot"],
    [`First token of a ${job.contextTokens}-token prompt`, seconds(plan.prefill.ttftSeconds), "prefill.ttft"],
    ["Prefill", `${rate(plan.prefill.tokensPerSec)}, all devices`, "prefill.all"],
  ];
}

/** The placement of a GGUF; the context of all requests is cached at once. */
export function planLocalLaunch(model: ModelConfig, job: LocalLaunch, margin = ASSUMED.memoryMargin): LocalPlan {
  const settings = { context: job.contextTokens * job.maxSequences, memoryShare: margin };
  return planLocal(blueprint(model), job.mix, job.machine, settings);
}

function predictLocal(request: PredictionRequest<LocalLaunch>): Prediction {
  const { model, job, margin = ASSUMED.memoryMargin } = request;
  const plan = planLocalLaunch(model, job, margin);
  const { vramBytes, ramBytes } = job.machine;
  const cure = "choose a smaller mix or a shorter context";
  checkFits("memory of the device", plan.gpu.totalBytes, vramBytes * margin, cure);
  checkFits("memory of the machine", plan.ram.totalBytes, ramBytes * margin, cure);
  const rows: PredictionRow[] = [
    ["File", inGib(plan.fileBytes), "file.bytes"],
    ["Memory of the device", `${inGib(plan.gpu.totalBytes)} of ${inGib(vramBytes)}`, "gpu.total"],
    ["Memory of the machine", `${inGib(plan.ram.totalBytes)} of ${inGib(ramBytes)}`, "ram.weights"],
    ["Layers whose experts stay in the machine", `${plan.cpuMoeLayers} of ${plan.moeLayers}`, "cpu_moe.layers"],
    ["Read for one token on the device", inGib(plan.gpuReadBytes), "gpu.read"],
    ["Read for one token in the machine", inGib(plan.ramReadBytes), "ram.read"],
    ["Decode, at most", `${plan.boundTokensPerSec.toFixed(1)} tokens/s for one request`, "bound.rate"],
  ];
  return { rows, command: localCommand(request) };
}

function checkFits(what: string, needed: number, available: number, cure: string): void {
  if (needed > available) {
    throw new MemoryError(`plan export: ${what}`, Math.ceil(needed), Math.floor(available), cure);
  }
}

/** `1.50 GiB (1.61 GB)`; below a GB in MiB and MB. */
function inGib(bytes: number): string {
  if (bytes < 1e9) return `${(bytes / 2 ** 20).toFixed(1)} MiB (${(bytes / 1e6).toFixed(1)} MB)`;
  return `${(bytes / 2 ** 30).toFixed(2)} GiB (${(bytes / 1e9).toFixed(2)} GB)`;
}

function seconds(value: number): string {
  return value < 1 ? `${(value * 1e3).toPrecision(3)} ms` : `${value.toPrecision(4)} s`;
}

function duration(value: number): string {
  return value < 2 * 86400 ? `${(value / 3600).toPrecision(3)} hours` : `${(value / 86400).toPrecision(4)} days`;
}

function rate(tokensPerSec: number): string {
  return `${Math.round(tokensPerSec).toLocaleString("en-US")} tokens/s`;
}
