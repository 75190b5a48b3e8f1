/** The words of launch export: what an engine is asked to run, where, and what it answers. */

import type { ModelConfig, TrainingConfig } from "../../config/index.ts";
import type { GgufMix } from "../gguf-mix.ts";
import type { Device } from "../hardware.ts";
import type { Layout } from "../layout.ts";
import type { LocalMachine } from "../local-run.ts";
import type { PrecisionRecipe } from "../precision.ts";
import type { Phrase, Word } from "./shell.ts";

/** A file of the folder, by its path in it. */
export interface LaunchFile {
  readonly path: string;
  readonly text: string;
}

export const CLUSTERS = ["slurm", "lws", "jobset", "ray", "mpi"] as const;

/** Who starts the nodes; without one, every node is started by hand. */
export type ClusterName = (typeof CLUSTERS)[number];

/** The machines of a run. */
export interface Site {
  /** Name of the job: lower-case letters, digits and hyphens. */
  readonly name: string;
  readonly nodes: number;
  readonly devicesPerNode: number;
  /** Container image of the nodes, for clusters that start containers. */
  readonly image: string | undefined;
  /** Host names of the nodes, for clusters that are reached over SSH. */
  readonly hosts: readonly string[];
}

/** What an engine needs on every node, before a cluster wraps it. */
export interface NodeProgram {
  /** `bash` before the program starts, such as the choice between a head and its workers. */
  readonly prepare: readonly string[];
  /** The program with its flags; it replaces the shell. */
  readonly run: readonly Phrase[];
  readonly environment: Readonly<Record<string, Word>>;
  /** Variables with what they hold unless the caller sets them. */
  readonly defaults: Readonly<Record<string, Word>>;
  /** Variables that the caller must set, with what they hold. */
  readonly required: Readonly<Record<string, string>>;
  /** The engine's own files: configuration, programs. */
  readonly files: readonly LaunchFile[];
  /** What the user must know or do, one sentence each; they stand in PLAN.md. */
  readonly notes: readonly string[];
  /** Port on which a service answers; absent for training. */
  readonly port?: number;
}

/** What a cluster adds to the folder. */
export interface ClusterFiles {
  readonly files: readonly LaunchFile[];
  /** Commands that start the run, for PLAN.md. */
  readonly start: readonly string[];
  /** What the user must know or do, one sentence each. */
  readonly notes: readonly string[];
}

/** A training run to write down. */
export interface TrainingLaunch {
  readonly kind: "train";
  readonly layout: Layout;
  readonly precision: PrecisionRecipe;
  readonly training: TrainingConfig;
}

/** How one copy of a served model is spread: tp devices share each attention, dp of those share the experts. */
export interface ServingLaunch {
  readonly kind: "serve";
  readonly tp: number;
  readonly pp: number;
  readonly dp: number;
  /** Whether routed experts are dealt out over all tp·dp devices; otherwise each is cut into tp parts. */
  readonly expertParallel: boolean;
  /** Longest context of a request, tokens. */
  readonly contextTokens: number;
  /** Requests that run at once, on all data-parallel ranks together. */
  readonly maxSequences: number;
  readonly kvCache: "bf16" | "fp8";
  /** Tokens that the MTP layers propose in a step; 0 for none. */
  readonly draftTokens: number;
}

/** A GGUF on one machine, split between its devices and its memory. */
export interface LocalLaunch {
  readonly kind: "local";
  readonly mix: GgufMix;
  readonly machine: LocalMachine;
  readonly contextTokens: number;
  readonly maxSequences: number;
}

/** What is to be launched. */
export type Launch = TrainingLaunch | ServingLaunch | LocalLaunch;

/** What an engine is asked to run. */
export interface EngineInput<J extends Launch = Launch> {
  readonly model: ModelConfig;
  /** As the user named the model. */
  readonly modelName: string;
  readonly site: Site;
  readonly device: Device;
  readonly cluster: ClusterName | undefined;
  /** Share of a device's memory that may be planned; undefined for the planner's own. */
  readonly margin: number | undefined;
  readonly job: J;
}

export type TrainingInput = EngineInput<TrainingLaunch>;
export type ServingInput = EngineInput<ServingLaunch>;
export type LocalInput = EngineInput<LocalLaunch>;
