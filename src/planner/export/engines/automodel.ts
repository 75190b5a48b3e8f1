/** NeMo Automodel: one YAML recipe over FSDP2. */

import { stringify } from "yaml";
import type { ModelConfig } from "../../../config/index.ts";
import { ConfigError } from "../../../core/errors.ts";
import { numMicroBatches, type Layout } from "../../layout.ts";
import { checkListed, keyPaths } from "../flag-rules.ts";
import { AUTOMODEL_KEYS } from "../flags/torch.ts";
import { checkLimits, type TrainingLimits } from "../limits.ts";
import type { NodeProgram, TrainingInput } from "../launch.ts";
import { plainRate, torchrun, warnSchedule } from "../torch-launcher.ts";

const LIMITS: TrainingLimits = {
  without: ["etp"],
  zero: [2, 3],
  schedules: ["1f1b", "gpipe", "interleaved"],
  precisions: ["bf16"],
  recompute: ["none", "full"],
};

const SCHEDULE_NAMES = { "1f1b": "1f1b", gpipe: "gpipe", interleaved: "interleaved1f1b" } as const;

const COMPONENTS = "nemo_automodel.components";

export function automodelLimits(model: ModelConfig): TrainingLimits {
  return hasOwnExperts(model) ? LIMITS : { ...LIMITS, without: [...LIMITS.without, "ep"] };
}

/** Automodel has DeepSeek-V3's kind of model itself; others it takes from transformers. */
function hasOwnExperts(model: ModelConfig): boolean {
  return model.topkMethod === "noaux_tc";
}

export function automodel(input: TrainingInput): NodeProgram {
  const { job, model, site } = input;
  if (job.layout.ep > 1 && !hasOwnExperts(model)) {
    const rule = "must be 1 for a model that Automodel runs through transformers";
    const cure = "only DeepSeek-V3's kind of model has its own experts there";
    throw new ConfigError("automodel ep", rule, job.layout.ep, cure);
  }
  checkLimits("automodel", LIMITS, job);
  const settings = recipe(input);
  checkListed("automodel", keyPaths(settings), AUTOMODEL_KEYS);
  const text = stringify(settings, { lineWidth: 0, aliasDuplicateObjects: false });
  return {
    prepare: [],
    run: [...torchrun(site, ["-m", "nemo_automodel.recipes.llm.train_ft"]), ["-c", "automodel.yaml"]],
    environment: { PYTORCH_CUDA_ALLOC_CONF: "expandable_segments:True" },
    defaults: { OUT: "out" },
    required: {
      DATA: "glob of the tokenised .bin and .idx files",
      MODEL_DIR: "folder with the model's tokenizer files",
    },
    files: [
      { path: "automodel.yaml", text: `# The training run of PLAN.md, for NeMo Automodel 0.5.0.\n${withFloats(text)}` },
    ],
    notes: notes(input),
  };
}

/** Python's YAML takes `1e-8` for text and `1.0e-8` for a number. */
function withFloats(text: string): string {
  return text.replaceAll(/([:-] -?\d+)(e-?\d+)$/gm, "$1.0$2");
}

type Yaml = Readonly<Record<string, unknown>>;

function recipe(input: TrainingInput): Yaml {
  const { layout, training } = input.job;
  return {
    recipe: "TrainFinetuneRecipeForNextTokenPrediction",
    step_scheduler: {
      global_batch_size: layout.globalBatchSize,
      local_batch_size: localBatchSize(layout),
      ckpt_every_steps: training.checkpointEvery,
      val_every_steps: training.evalEvery,
      num_epochs: 1,
      max_steps: training.steps,
    },
    dist_env: { backend: "nccl", timeout_minutes: 10 },
    rng: { _target_: `${COMPONENTS}.training.rng.StatefulRNG`, seed: training.seed, ranked: true },
    model: modelSection(input),
    distributed: distributed(input),
    loss_fn: { _target_: `${COMPONENTS}.loss.masked_ce.MaskedCrossEntropy` },
    dataset: dataset(layout, "train"),
    dataloader: dataloader(),
    validation_dataset: { ...dataset(layout, "validation"), num_val_samples: 1024 },
    validation_dataloader: dataloader(),
    checkpoint: {
      enabled: true,
      checkpoint_dir: "${OUT}/checkpoints",
      model_save_format: "safetensors",
      save_consolidated: false,
    },
    optimizer: {
      _target_: "torch.optim.AdamW",
      lr: training.lr,
      betas: [training.beta1, training.beta2],
      eps: training.adamEps,
      weight_decay: training.weightDecay,
    },
    lr_scheduler: {
      lr_decay_style: training.schedule === "constant" ? "constant" : "cosine",
      lr_warmup_steps: training.warmupSteps,
      min_lr: plainRate(training.minLr),
    },
    clip_grad_norm: { max_norm: training.gradClip },
  };
}

/** One call of a pipeline takes all its micro-batches at once; without a pipeline they come one after the other. */
function localBatchSize(layout: Layout): number {
  return layout.pp === 1 ? layout.microBatchSize : layout.microBatchSize * numMicroBatches(layout);
}

function modelSection({ model, job }: TrainingInput): Yaml {
  return {
    _target_: "nemo_automodel.NeMoAutoModelForCausalLM.from_config",
    config: { _target_: "transformers.AutoConfig.from_pretrained", pretrained_model_name_or_path: "." },
    ...(hasOwnExperts(model)
      ? {
          backend: {
            _target_: `${COMPONENTS}.models.common.BackendConfig`,
            attn: "te",
            linear: "te",
            rms_norm: "te",
            experts: "torch_mm",
            dispatcher: job.layout.ep > 1 ? "deepep" : "torch",
            enable_hf_state_dict_adapter: true,
          },
        }
      : {}),
  };
}

function distributed({ model, job: { layout } }: TrainingInput): Yaml {
  return {
    strategy: "fsdp2",
    tp_size: layout.tp,
    cp_size: layout.cp,
    pp_size: layout.pp,
    dp_size: layout.dp,
    ep_size: layout.ep,
    sequence_parallel: layout.sequenceParallel && layout.tp > 1,
    activation_checkpointing: layout.recompute === "full",
    ...(layout.pp > 1 ? { pipeline: pipeline(layout, model.nLayers) } : {}),
    ...(layout.ep > 1 ? { moe: { reshard_after_forward: layout.zero === 3 } } : {}),
  };
}

function pipeline(layout: Layout, nLayers: number): Yaml {
  return {
    pp_schedule: SCHEDULE_NAMES[layout.schedule as keyof typeof SCHEDULE_NAMES],
    pp_microbatch_size: layout.microBatchSize,
    ...stages(layout, nLayers),
    scale_grads_in_schedule: false,
    patch_inner_model: false,
    patch_causal_lm_model: false,
  };
}

/**
 * Automodel cuts the layers into pieces of one length and then rounds their number to a multiple of pp.
 *
 * @throws ConfigError when no rounding gives pp·vp pieces.
 */
function stages({ pp, vp }: Layout, nLayers: number): Yaml {
  const length = Math.ceil(nLayers / (pp * vp));
  const pieces = Math.ceil(nLayers / length);
  const down = pieces - (pieces % pp);
  const up = Math.ceil(pieces / pp) * pp;
  if (down !== pp * vp && up !== pp * vp) {
    const rule = `must be reachable from ${nLayers} layers; ${length} layers a stage make ${down} or ${up} stages`;
    throw new ConfigError("automodel pp", rule, `${pp * vp} stages`, "choose another pp or vp");
  }
  return { layers_per_stage: length, round_virtual_stages_to_pp_multiple: down === pp * vp ? "down" : "up" };
}

function dataset(layout: Layout, split: "train" | "validation"): Yaml {
  return {
    _target_: `${COMPONENTS}.datasets.llm.megatron_dataset.MegatronPretraining`,
    paths: "${DATA}",
    index_mapping_dir: "${OUT}/index",
    tokenizer: {
      _target_: "nemo_automodel._transformers.auto_tokenizer.NeMoAutoTokenizer.from_pretrained",
      pretrained_model_name_or_path: "${MODEL_DIR}",
    },
    seq_length: layout.seqLen,
    split: "0.99, 0.01, 0.00",
    splits_to_build: split,
  };
}

function dataloader(): Yaml {
  return {
    _target_: "torchdata.stateful_dataloader.StatefulDataLoader",
    collate_fn: "torch.utils.data.default_collate",
    dataloader_type: "single",
  };
}

function notes({ model, job }: TrainingInput): string[] {
  return [
    ...(hasOwnExperts(model)
      ? []
      : ["Automodel runs this model through transformers, without fused experts: expect less speed than predicted."]),
    ...(job.layout.ep > 1 ? ["The deepep dispatcher needs DeepEP on every node."] : []),
    ...warnSchedule(job.training),
  ];
}
