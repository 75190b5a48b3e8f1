/** torchtitan: a small Python module that takes a configuration of its registry and changes the fields of the plan. */

import { ConfigError } from "../../../core/errors.ts";
import type { ModelConfig } from "../../../config/index.ts";
import { numMicroBatches, type Layout, type Schedule } from "../../layout.ts";
import { checkListed } from "../flag-rules.ts";
import { TORCHTITAN_FIELDS } from "../flags/torch.ts";
import { checkLimits, type TrainingLimits } from "../limits.ts";
import type { LaunchFile, NodeProgram, TrainingInput } from "../launch.ts";
import { literal, type Literal } from "../python.ts";
import { expand } from "../shell.ts";
import { minLrShare, torchrun, warnSchedule } from "../torch-launcher.ts";

export const TORCHTITAN_LIMITS: TrainingLimits = {
  without: ["etp"],
  zero: [2, 3],
  schedules: ["1f1b", "gpipe", "interleaved", "dualpipev"],
  precisions: ["bf16", "fp8-bf16-states"],
  recompute: ["none", "selective", "full"],
};

const SCHEDULE_NAMES: Readonly<Partial<Record<Schedule, string>>> = {
  "1f1b": "1F1B",
  gpipe: "GPipe",
  interleaved: "Interleaved1F1B",
  dualpipev: "DualPipeV",
};

type Shape = readonly (keyof ModelConfig)[];

const SHAPE = [
  "vocabSize",
  "dim",
  "nLayers",
  "interDim",
  "moeInterDim",
  "nDenseLayers",
  "nHeads",
  "nRoutedExperts",
  "nSharedExperts",
  "nActivatedExperts",
  "nExpertGroups",
  "qLoraRank",
  "kvLoraRank",
] as const satisfies Shape;

/** The models of the registry by their shape, in the order of SHAPE. */
const REGISTRY: Readonly<Record<string, readonly number[]>> = {
  deepseek_v3_16b: [102400, 2048, 27, 10944, 1408, 1, 16, 64, 2, 6, 1, 0, 512],
  deepseek_v3_671b: [129280, 7168, 61, 18432, 2048, 3, 128, 256, 1, 8, 8, 1536, 512],
};

/** Layers by which torchtitan makes the first and the last stage shorter: embedding and head count as one each. */
const STAGE_ENDS = 2;

export function torchtitan(input: TrainingInput): NodeProgram {
  const { job, site } = input;
  checkLimits("torchtitan", TORCHTITAN_LIMITS, job);
  const name = registryName(input);
  const { ep, tp } = job.layout;
  if (ep > 1 && ep < tp) throw new ConfigError("torchtitan ep", `must be at least tp (${tp})`, ep, "raise ep");
  return {
    prepare: [],
    run: [...torchrun(site, ["-m", "torchtitan.train"]), ["--module", "fathom_plan"], ["--config", "train"]],
    environment: {
      PYTHONPATH: expand("$TORCHTITAN_DIR:$PWD${PYTHONPATH:+:$PYTHONPATH}"),
      PYTORCH_CUDA_ALLOC_CONF: "expandable_segments:True",
    },
    defaults: { TORCHTITAN_DIR: "/opt/torchtitan", OUT: "out" },
    required: { MODEL_DIR: "folder with the model's tokenizer files" },
    files: [moduleFile(input, name)],
    notes: notes(input, name),
  };
}

/** @throws ConfigError when the registry has no such model. */
function registryName({ model, modelName, job }: TrainingInput): string {
  const found = Object.entries(REGISTRY).find(([, shape]) => SHAPE.every((key, i) => model[key] === shape[i]));
  if (found === undefined) {
    throw new ConfigError(
      "torchtitan model",
      "must have the shape of a model in torchtitan's registry (deepseek-v2-lite or deepseek-v3)",
      modelName,
      "choose one of them, or another engine",
    );
  }
  if (job.precision.name === "bf16") return found[0];
  if (found[0] === "deepseek_v3_671b") return "deepseek_v3_671b_float8";
  throw new ConfigError("torchtitan precision", "must be bf16 for this model", job.precision.name);
}

function moduleFile(input: TrainingInput, name: string): LaunchFile {
  const { layout, training } = input.job;
  const settings = fields(input);
  checkListed("torchtitan", Object.keys(settings), TORCHTITAN_FIELDS);
  const lines = Object.entries(settings).map(([path, value]) => `    config.${path} = ${literal(value)}`);
  const [checkpointing, imported] = ACTIVATION_CHECKPOINTING[layout.recompute as "full"];
  const text = [
    '"""The training run of PLAN.md, for torchtitan.train --module fathom_plan --config train."""',
    "",
    "import os",
    "",
    "from torchtitan.components.optimizer import default_adamw",
    ...(imported === undefined ? [] : [`from torchtitan.distributed.activation_checkpoint import ${imported}`]),
    `from torchtitan.models.deepseek_v3.config_registry import ${name}`,
    "",
    "",
    "def train():",
    `    config = ${name}()`,
    '    config.hf_assets_path = os.environ["MODEL_DIR"]',
    '    config.dump_folder = os.environ["OUT"]',
    ...lines,
    `    config.activation_checkpoint = ${checkpointing}`,
    "    config.optimizer = default_adamw(",
    `        lr=${training.lr},`,
    `        betas=(${training.beta1}, ${training.beta2}),`,
    `        eps=${training.adamEps},`,
    `        weight_decay=${training.weightDecay},`,
    "    )",
    "    return config",
    "",
  ];
  return { path: "fathom_plan.py", text: text.join("\n") };
}

const ACTIVATION_CHECKPOINTING = {
  none: ["None", undefined],
  selective: ["SelectiveAC.Config()", "SelectiveAC"],
  full: ["FullAC.Config()", "FullAC"],
} as const;

function fields({ job: { layout, training }, model: { nLayers } }: TrainingInput): Record<string, Literal> {
  const tokens = layout.microBatchSize * layout.seqLen;
  return {
    "training.num_tokens_per_microbatch_per_dp_rank": tokens,
    "training.num_tokens_per_train_step": layout.globalBatchSize * layout.seqLen,
    "training.max_context_length": layout.seqLen,
    "training.steps": training.steps,
    "training.max_norm": training.gradClip,
    "lr_scheduler.warmup_steps": training.warmupSteps,
    "lr_scheduler.decay_ratio": decayRatio(training),
    "lr_scheduler.decay_type": "cosine",
    "lr_scheduler.min_lr_factor": minLrShare(training),
    "parallelism.data_parallel_replicate_degree": 1,
    "parallelism.data_parallel_shard_degree": layout.dp,
    "parallelism.fsdp_reshard_after_forward": layout.zero === 3 ? "always" : "never",
    "parallelism.tensor_parallel_degree": layout.tp,
    "parallelism.enable_sequence_parallel": layout.sequenceParallel,
    "parallelism.context_parallel_degree": layout.cp,
    "parallelism.expert_parallel_degree": layout.ep,
    ...pipelineFields(layout, nLayers),
    "checkpoint.enable": true,
    "checkpoint.interval": training.checkpointEvery,
    // torchtitan refuses 1, since the newest may still be in writing.
    "checkpoint.keep_latest_k": Math.max(2, training.keepLast),
  };
}

/** Share of the steps in which the rate falls; what is left after warm-up stays level. */
function decayRatio({ schedule, steps, warmupSteps, decaySteps }: TrainingInput["job"]["training"]): number {
  if (schedule === "constant") return 0;
  return schedule === "wsd" ? decaySteps / steps : 1 - warmupSteps / steps;
}

function pipelineFields(layout: Layout, nLayers: number): Record<string, Literal> {
  if (layout.pp === 1) return { "parallelism.pipeline_parallel_degree": 1 };
  return {
    "parallelism.pipeline_parallel_degree": layout.pp,
    "parallelism.pipeline_parallel_schedule": SCHEDULE_NAMES[layout.schedule]!,
    "parallelism.pipeline_parallel_first_stage_less_layers": STAGE_ENDS / 2,
    "parallelism.pipeline_parallel_last_stage_less_layers": STAGE_ENDS / 2,
    "parallelism.pipeline_parallel_layers_per_stage": layersPerStage(layout, nLayers),
    "parallelism.num_pp_microbatches": numMicroBatches(layout),
  };
}

/**
 * torchtitan makes as many stages as pieces of this length fill; only some lengths give the number that is wanted.
 *
 * @throws ConfigError when none does.
 */
function layersPerStage(layout: Layout, nLayers: number): number {
  const stages = layout.pp * (layout.schedule === "dualpipev" ? 2 : layout.vp);
  const length = Math.ceil((nLayers + STAGE_ENDS) / stages);
  const got = Math.ceil((nLayers + STAGE_ENDS) / length);
  if (got === stages) return length;
  const rule = `must make stages that ${nLayers} layers and ${STAGE_ENDS} ends fill; ${length} layers a stage make ${got}`;
  throw new ConfigError("torchtitan pp", rule, `${stages} stages`, "choose another pp or vp");
}

function notes({ model, job }: TrainingInput, name: string): string[] {
  return [
    "Set TORCHTITAN_DIR to a checkout of torchtitan (commit b5bcd76c6) unless it lies in /opt/torchtitan.",
    `The data set is the one of ${name} in torchtitan's registry; change config.dataloader for your own.`,
    "COMM_MODE=fake_backend checks shapes and meshes on one machine, without devices.",
    ...(model.nMtpLayers > 0 ? ["torchtitan's registry trains this model without its MTP layers."] : []),
    ...(model.topkMethod === "noaux_tc"
      ? ["torchtitan subtracts the mean from the router's bias steps, which DeepSeek-V3 does not."]
      : []),
    ...warnSchedule(job.training),
  ];
}
