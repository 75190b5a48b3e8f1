/** The engines: version, where they run, which flags they take, and what writes them down. */

import type { ModelConfig } from "../../config/index.ts";
import { ConfigError } from "../../core/errors.ts";
import { ENGINE_TASKS, type EngineName } from "./engine-names.ts";
import { automodel, automodelLimits } from "./engines/automodel.ts";
import { deepseekDemo } from "./engines/deepseek-demo.ts";
import { DEEPSPEED_LIMITS, deepspeed } from "./engines/deepspeed.ts";
import { llamaCpp } from "./engines/llama-cpp.ts";
import { MEGATRON_LIMITS, megatron } from "./engines/megatron.ts";
import { sglang } from "./engines/sglang.ts";
import { TORCHTITAN_LIMITS, torchtitan } from "./engines/torchtitan.ts";
import { vllm } from "./engines/vllm.ts";
import { LLAMA_CPP_FLAGS, LLAMA_CPP_VERSION } from "./flags/llama-cpp.ts";
import { MEGATRON_FLAGS, MEGATRON_VERSION } from "./flags/megatron.ts";
import { DEMO_FLAGS, DEMO_VERSION, SGLANG_FLAGS, SGLANG_VERSION, VLLM_FLAGS, VLLM_VERSION } from "./flags/serving.ts";
import {
  AUTOMODEL_FLAGS,
  AUTOMODEL_VERSION,
  DEEPSPEED_FLAGS,
  DEEPSPEED_VERSION,
  TORCHRUN_FLAGS,
  TORCHTITAN_FLAGS,
  TORCHTITAN_VERSION,
} from "./flags/torch.ts";
import type { TrainingLimits } from "./limits.ts";
import type {
  ClusterName,
  EngineInput,
  Launch,
  LocalLaunch,
  NodeProgram,
  ServingLaunch,
  TrainingLaunch,
} from "./launch.ts";

interface EngineRow<J extends Launch> {
  readonly version: string;
  readonly clusters: readonly ClusterName[];
  /** Every flag that a command of this engine may carry. */
  readonly flags: readonly string[];
  /** Public container image, where the engine publishes one. */
  readonly image?: string;
  /** What it can lay out, for engines that train. */
  readonly limits?: (model: ModelConfig) => TrainingLimits;
  /** Whether it trains the MTP layers; what it does not train is not planned. */
  readonly trainsMtp?: boolean;
  readonly program: (input: EngineInput<J>) => NodeProgram;
}

const TRAINING = { clusters: ["slurm", "jobset", "mpi"] } as const;

const ENGINES = {
  megatron: {
    ...TRAINING,
    version: MEGATRON_VERSION,
    flags: [...TORCHRUN_FLAGS, ...MEGATRON_FLAGS],
    limits: () => MEGATRON_LIMITS,
    trainsMtp: true,
    program: megatron,
  } satisfies EngineRow<TrainingLaunch>,
  torchtitan: {
    ...TRAINING,
    version: TORCHTITAN_VERSION,
    flags: [...TORCHRUN_FLAGS, ...TORCHTITAN_FLAGS],
    limits: () => TORCHTITAN_LIMITS,
    program: torchtitan,
  } satisfies EngineRow<TrainingLaunch>,
  automodel: {
    ...TRAINING,
    version: AUTOMODEL_VERSION,
    flags: [...TORCHRUN_FLAGS, ...AUTOMODEL_FLAGS],
    limits: automodelLimits,
    trainsMtp: true,
    program: automodel,
  } satisfies EngineRow<TrainingLaunch>,
  deepspeed: {
    ...TRAINING,
    version: DEEPSPEED_VERSION,
    flags: [...TORCHRUN_FLAGS, ...DEEPSPEED_FLAGS],
    limits: () => DEEPSPEED_LIMITS,
    program: deepspeed,
  } satisfies EngineRow<TrainingLaunch>,
  vllm: {
    version: VLLM_VERSION,
    clusters: ["slurm", "lws", "ray"],
    flags: VLLM_FLAGS,
    image: "vllm/vllm-openai:v0.20.1",
    program: vllm,
  } satisfies EngineRow<ServingLaunch>,
  sglang: {
    version: SGLANG_VERSION,
    clusters: ["slurm", "lws"],
    flags: SGLANG_FLAGS,
    image: "lmsysorg/sglang:v0.5.11",
    program: sglang,
  } satisfies EngineRow<ServingLaunch>,
  "llama.cpp": {
    version: `llama.cpp ${LLAMA_CPP_VERSION}`,
    clusters: ["slurm"],
    flags: LLAMA_CPP_FLAGS,
    program: llamaCpp,
  } satisfies EngineRow<LocalLaunch>,
  "deepseek-demo": {
    version: DEMO_VERSION,
    clusters: ["slurm", "mpi"],
    flags: [...TORCHRUN_FLAGS, ...DEMO_FLAGS],
    program: deepseekDemo,
  } satisfies EngineRow<ServingLaunch>,
} as const satisfies Record<EngineName, unknown>;

/** The row of an engine, without regard to what kind of job it takes. */
export function engineRow(name: EngineName): Omit<EngineRow<Launch>, "program"> {
  return ENGINES[name];
}

/** What the engine runs. @throws ConfigError when the job is of another kind, or the cluster does not run such jobs. */
export function engineProgram(name: EngineName, input: EngineInput): NodeProgram {
  const { job, cluster } = input;
  const task = ENGINE_TASKS[name];
  if (task !== job.kind) {
    const others = Object.entries(ENGINE_TASKS).filter(([, other]) => other === job.kind);
    const cure = `choose one of ${others.map(([other]) => other).join(", ")}`;
    throw new ConfigError("engine", `${name} is made to ${TASKS[task]}, not to ${TASKS[job.kind]}`, undefined, cure);
  }
  checkCluster(name, cluster);
  return (ENGINES[name].program as (given: EngineInput) => NodeProgram)(input);
}

/** @throws ConfigError for a cluster that the engine has no template for. */
export function checkCluster(name: EngineName, cluster: ClusterName | undefined): void {
  const { clusters } = engineRow(name);
  if (cluster === undefined || clusters.includes(cluster)) return;
  const rule = `${name} runs on ${clusters.join(", ")}`;
  throw new ConfigError("cluster", rule, cluster, "choose one of them, or leave it out and start the nodes by hand");
}

const TASKS: Readonly<Record<Launch["kind"], string>> = {
  train: "train",
  serve: "serve from devices",
  local: "serve a GGUF on one machine",
};
