/**
 * Flags of the engines that take their settings from a file: their launchers, and the settings of the file that may be
 * overridden on the command line.
 *
 * **Source:** torchtitan b5bcd76c6 (torchtitan/config, models/deepseek_v3/config_registry.py); NeMo Automodel 0.5.0
 * (examples/llm_pretrain, recipes/llm/train_ft.py); DeepSpeed 0.19.6 (deepspeed/launcher/runner.py).
 */

export const TORCHTITAN_VERSION = "torchtitan b5bcd76c6";

export const TORCHTITAN_FLAGS: readonly string[] = [
  "--module",
  "--config",
  "--checkpoint.async_mode",
  "--checkpoint.enable",
  "--checkpoint.initial_load_in_hf",
  "--checkpoint.initial_load_path",
  "--checkpoint.interval",
  "--checkpoint.keep_latest_k",
  "--checkpoint.last_save_in_hf",
  "--compile.enable",
  "--debug.deterministic",
  "--debug.seed",
  "--lr_scheduler.decay_ratio",
  "--lr_scheduler.decay_type",
  "--lr_scheduler.min_lr_factor",
  "--lr_scheduler.warmup_steps",
  "--metrics.enable_tensorboard",
  "--metrics.log_freq",
  "--training.max_norm",
  "--training.steps",
];

/** Fields of torchtitan's configuration that the module may set. */
export const TORCHTITAN_FIELDS: readonly string[] = [
  "activation_checkpoint",
  "checkpoint.enable",
  "checkpoint.interval",
  "checkpoint.keep_latest_k",
  "dump_folder",
  "hf_assets_path",
  "lr_scheduler.decay_ratio",
  "lr_scheduler.decay_type",
  "lr_scheduler.min_lr_factor",
  "lr_scheduler.warmup_steps",
  "optimizer",
  "parallelism.context_parallel_degree",
  "parallelism.data_parallel_replicate_degree",
  "parallelism.data_parallel_shard_degree",
  "parallelism.enable_sequence_parallel",
  "parallelism.expert_parallel_degree",
  "parallelism.fsdp_reshard_after_forward",
  "parallelism.num_pp_microbatches",
  "parallelism.pipeline_parallel_degree",
  "parallelism.pipeline_parallel_first_stage_less_layers",
  "parallelism.pipeline_parallel_last_stage_less_layers",
  "parallelism.pipeline_parallel_layers_per_stage",
  "parallelism.pipeline_parallel_schedule",
  "parallelism.tensor_parallel_degree",
  "training.max_context_length",
  "training.max_norm",
  "training.num_tokens_per_microbatch_per_dp_rank",
  "training.num_tokens_per_train_step",
  "training.steps",
];

export const AUTOMODEL_VERSION = "NeMo Automodel 0.5.0 (36044ad3d)";

export const AUTOMODEL_FLAGS: readonly string[] = [
  "-c",
  "--checkpoint.checkpoint_dir",
  "--checkpoint.save_consolidated",
  "--dist_env.timeout_minutes",
  "--lr_scheduler.lr_warmup_steps",
  "--lr_scheduler.min_lr",
  "--model.backend.attn",
  "--model.backend.dispatcher",
  "--model.backend.experts",
  "--model.backend.linear",
  "--model.backend.rms_norm",
  "--optimizer.lr",
  "--optimizer.weight_decay",
  "--step_scheduler.ckpt_every_steps",
  "--step_scheduler.max_steps",
  "--step_scheduler.val_every_steps",
];

/** Keys of the recipe, without the keys of what `_target_` names. */
export const AUTOMODEL_KEYS: readonly string[] = [
  "recipe",
  "step_scheduler.global_batch_size",
  "step_scheduler.local_batch_size",
  "step_scheduler.ckpt_every_steps",
  "step_scheduler.val_every_steps",
  "step_scheduler.num_epochs",
  "step_scheduler.max_steps",
  "dist_env.backend",
  "dist_env.timeout_minutes",
  "rng",
  "model",
  "distributed.strategy",
  "distributed.tp_size",
  "distributed.cp_size",
  "distributed.pp_size",
  "distributed.dp_size",
  "distributed.ep_size",
  "distributed.sequence_parallel",
  "distributed.activation_checkpointing",
  "distributed.pipeline.pp_schedule",
  "distributed.pipeline.pp_microbatch_size",
  "distributed.pipeline.layers_per_stage",
  "distributed.pipeline.round_virtual_stages_to_pp_multiple",
  "distributed.pipeline.scale_grads_in_schedule",
  "distributed.pipeline.patch_inner_model",
  "distributed.pipeline.patch_causal_lm_model",
  "distributed.moe.reshard_after_forward",
  "loss_fn",
  "dataset",
  "dataloader",
  "validation_dataset",
  "validation_dataloader",
  "checkpoint.enabled",
  "checkpoint.checkpoint_dir",
  "checkpoint.model_save_format",
  "checkpoint.save_consolidated",
  "optimizer",
  "lr_scheduler.lr_decay_style",
  "lr_scheduler.lr_warmup_steps",
  "lr_scheduler.min_lr",
  "clip_grad_norm.max_norm",
];

export const DEEPSPEED_VERSION = "DeepSpeed 0.19.6 (edaa72212)";

export const DEEPSPEED_FLAGS: readonly string[] = [
  "--data",
  "--deepspeed",
  "--hostfile",
  "--num_nodes",
  "--num_gpus",
  "--out",
];

/** Keys of DeepSpeed's JSON configuration. */
export const DEEPSPEED_KEYS: readonly string[] = [
  "train_batch_size",
  "train_micro_batch_size_per_gpu",
  "gradient_accumulation_steps",
  "bf16.enabled",
  "fp16.enabled",
  "gradient_clipping",
  "zero_optimization.stage",
  "zero_optimization.overlap_comm",
  "zero_optimization.reduce_bucket_size",
  "zero_optimization.allgather_bucket_size",
  "expert_parallel.enabled",
  "expert_parallel.autoep_size",
  "expert_parallel.preset_model",
  "optimizer.type",
  "optimizer.params.lr",
  "optimizer.params.betas",
  "optimizer.params.eps",
  "optimizer.params.weight_decay",
  "scheduler.type",
  "scheduler.params.warmup_max_lr",
  "scheduler.params.warmup_num_steps",
  "scheduler.params.total_num_steps",
  "scheduler.params.cos_min_ratio",
];

/** Flags of torchrun, under which all of them run. */
export const TORCHRUN_FLAGS: readonly string[] = [
  "--nnodes",
  "--nproc_per_node",
  "--node_rank",
  "--master_addr",
  "--master_port",
  "-m",
];
