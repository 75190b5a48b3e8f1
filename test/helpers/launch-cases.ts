/** Jobs to be written down: every engine with every cluster that runs it, for several models. */

import { resolveConfig, type ResolvedConfig } from "../../src/config/index.ts";
import { device } from "../../src/planner/devices.ts";
import { ENGINE_TASKS, type EngineName } from "../../src/planner/export/engine-names.ts";
import { engineRow } from "../../src/planner/export/engines.ts";
import type { ExportRequest } from "../../src/planner/export/export-plan.ts";
import type { LocalLaunch, ServingLaunch, TrainingLaunch } from "../../src/planner/export/launch.ts";
import { completeLayout, type LayoutInput } from "../../src/planner/layout.ts";
import { precisionRecipe } from "../../src/planner/precision.ts";

interface Machines {
  readonly name: string;
  readonly nodes: number;
}

interface Job {
  readonly model: string;
  readonly on: Machines;
  readonly job: ExportRequest["job"];
}

/** The preset; without YaRN where it extends a context that engines' templates do not have. */
function configOf(model: string): ResolvedConfig {
  return resolveConfig(model, model === "tiny" ? { rope_factor: 1 } : {});
}

const PER_NODE = 8;
const world = ({ nodes }: Machines): number => nodes * PER_NODE;

function train(model: string, on: Machines, layout: LayoutInput, precision = "bf16"): Job {
  const job: TrainingLaunch = {
    kind: "train",
    layout: completeLayout(layout, world(on)),
    precision: precisionRecipe(precision),
    training: configOf(model).training,
  };
  return { model, on, job };
}

function serve(
  model: string,
  on: Machines,
  sizes: Pick<ServingLaunch, "tp" | "pp" | "dp"> & Partial<ServingLaunch>,
): Job {
  const job: ServingLaunch = {
    kind: "serve",
    expertParallel: sizes.tp * sizes.dp > 1,
    contextTokens: 8192,
    maxSequences: 64,
    kvCache: "bf16",
    draftTokens: 0,
    ...sizes,
  };
  return { model, on, job };
}

function local(model: string, mix: LocalLaunch["mix"]): Job {
  const machine = { vramBytes: 24 * 2 ** 30, ramBytes: 512 * 2 ** 30, vramBytesPerSec: 1008e9, ramBytesPerSec: 460e9 };
  return {
    model,
    on: { name: "rtx-4090", nodes: 1 },
    job: { kind: "local", mix, machine, contextTokens: 4096, maxSequences: 1 },
  };
}

const batch = { globalBatchSize: 8192, seqLen: 4096 } as const;
const small = { globalBatchSize: 512, seqLen: 4096 } as const;
const tiny = { globalBatchSize: 64, seqLen: 64 } as const;
const h100 = (nodes: number): Machines => ({ name: "h100", nodes });
const b200 = (nodes: number): Machines => ({ name: "b200", nodes });

const LITE = "deepseek-v2-lite";
const V2 = "deepseek-v2";
const V3 = "deepseek-v3";

const JOBS: Readonly<Record<EngineName, readonly Job[]>> = {
  megatron: [
    train(LITE, h100(2), { ...small, ep: 8, recompute: "full" }),
    train(LITE, h100(4), { ...small, zero: 3, ep: 8, recompute: "first-50" }, "bf16-bf16-moments"),
    train(V2, h100(32), { ...batch, tp: 2, pp: 4, ep: 32, recompute: "full" }),
    train(V3, h100(128), { ...batch, tp: 2, pp: 8, vp: 4, ep: 64, recompute: "full" }, "fp8"),
    train(V3, b200(32), { ...batch, pp: 16, ep: 16, recompute: "full" }, "fp8"),
    train("tiny", h100(1), { ...tiny, tp: 2, pp: 2, ep: 2, etp: 2, cp: 2, recompute: "selective" }),
  ],
  torchtitan: [
    train(LITE, h100(2), { ...small, ep: 8, zero: 3, recompute: "full" }),
    train(V3, h100(64), { ...batch, pp: 8, vp: 2, ep: 32, zero: 3, recompute: "full" }),
    train(V3, b200(32), { ...batch, ep: 64, zero: 3, recompute: "full" }, "fp8-bf16-states"),
  ],
  automodel: [
    train(LITE, h100(4), { ...small, zero: 3, recompute: "full" }),
    train(V3, h100(64), { ...batch, pp: 8, vp: 4, ep: 32, zero: 3, recompute: "full" }),
    train("tiny", h100(1), { ...tiny, zero: 2, ep: 4 }),
  ],
  deepspeed: [
    train(LITE, h100(4), { ...small, ep: 8, zero: 2, recompute: "full" }),
    train(LITE, h100(1), { ...small, zero: 3, recompute: "full" }),
    train(V3, b200(128), { ...batch, ep: 64, zero: 2, recompute: "full" }),
  ],
  vllm: [
    serve(LITE, h100(1), { tp: 2, pp: 1, dp: 4 }),
    serve(V3, { name: "h200", nodes: 1 }, { tp: 8, pp: 1, dp: 1, draftTokens: 1 }),
    serve(V3, { name: "h800", nodes: 4 }, { tp: 1, pp: 1, dp: 32, kvCache: "fp8" }),
    serve(V3, { name: "h800", nodes: 2 }, { tp: 8, pp: 2, dp: 1, expertParallel: false }),
  ],
  sglang: [
    serve(LITE, h100(1), { tp: 8, pp: 1, dp: 1, expertParallel: false }),
    serve(V3, { name: "h800", nodes: 2 }, { tp: 1, pp: 1, dp: 16, kvCache: "fp8", draftTokens: 1 }),
  ],
  "llama.cpp": [local(LITE, "Q4_K_M"), local(V3, "Q2_K"), local(V3, "Q4_K_M")],
  "deepseek-demo": [
    serve(LITE, h100(1), { tp: 8, pp: 1, dp: 1, expertParallel: false, maxSequences: 8 }),
    serve(V3, { name: "h800", nodes: 2 }, { tp: 16, pp: 1, dp: 1, expertParallel: false, maxSequences: 8 }),
  ],
};

export interface LaunchCase {
  readonly name: string;
  readonly request: ExportRequest;
}

export function launchCases(): LaunchCase[] {
  return (Object.keys(ENGINE_TASKS) as EngineName[]).flatMap((engine) =>
    JOBS[engine].flatMap((job) => casesOf(engine, job)),
  );
}

function casesOf(engine: EngineName, { model, on, job }: Job): LaunchCase[] {
  const isOneNode = on.nodes === 1;
  return [undefined, ...engineRow(engine).clusters].map((cluster) => ({
    name: `${engine} on ${cluster ?? "no cluster"}: ${model}, ${on.nodes} × ${PER_NODE} ${on.name}`,
    request: {
      engine,
      ...(cluster === undefined ? {} : { cluster }),
      model: configOf(model).model,
      modelName: model,
      device: device(on.name),
      nodes: on.nodes,
      devicesPerNode: job.kind === "local" && isOneNode ? 1 : PER_NODE,
      job,
      image: "registry.example/engine:1",
    },
  }));
}
