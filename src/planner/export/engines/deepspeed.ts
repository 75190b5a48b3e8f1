/** DeepSpeed: its JSON configuration and a training loop over the Hugging Face model. */

import { ConfigError } from "../../../core/errors.ts";
import { numMicroBatches } from "../../layout.ts";
import { checkListed, keyPaths } from "../flag-rules.ts";
import { DEEPSPEED_KEYS } from "../flags/torch.ts";
import { checkLimits, type TrainingLimits } from "../limits.ts";
import type { NodeProgram, TrainingInput } from "../launch.ts";
import { literal } from "../python.ts";
import { expand, type Phrase } from "../shell.ts";
import { minLrShare, torchrun, warnSchedule } from "../torch-launcher.ts";

export const DEEPSPEED_LIMITS: TrainingLimits = {
  without: ["tp", "pp", "vp", "cp", "etp"],
  zero: [0, 1, 2, 3],
  schedules: ["1f1b"],
  precisions: ["bf16", "fp16", "fp32"],
  recompute: ["none", "full"],
};

export function deepspeed(input: TrainingInput): NodeProgram {
  const { job, site } = input;
  checkLimits("deepspeed", DEEPSPEED_LIMITS, job);
  const { ep, zero } = job.layout;
  if (ep > 1 && zero === 3) {
    throw new ConfigError(
      "deepspeed zero",
      "must be 0, 1 or 2 with expert parallelism",
      zero,
      "lower zero or set ep to 1",
    );
  }
  const settings = config(input);
  checkListed("deepspeed", keyPaths(settings), DEEPSPEED_KEYS);
  const train: Phrase[] = [
    ["train.py"],
    ["--deepspeed", "ds_config.json"],
    ["--data", expand("$DATA")],
    ["--out", expand("$OUT")],
  ];
  return {
    prepare: [],
    run: input.cluster === undefined && site.nodes > 1 ? hostfileLauncher(input, train) : [...torchrun(site), ...train],
    environment: { PYTORCH_CUDA_ALLOC_CONF: "expandable_segments:True" },
    defaults: { OUT: "out" },
    required: { DATA: "file of token ids, little-endian int32, documents one after the other" },
    files: [
      { path: "ds_config.json", text: `${JSON.stringify(settings, null, 2)}\n` },
      { path: "train.py", text: program(input) },
      ...(input.cluster === undefined && site.nodes > 1 ? [hostfile(input)] : []),
    ],
    notes: notes(input),
  };
}

/** DeepSpeed's own launcher reaches the nodes over SSH. */
function hostfileLauncher({ site }: TrainingInput, train: readonly Phrase[]): Phrase[] {
  return [
    ["deepspeed"],
    ["--hostfile", "hostfile"],
    ["--num_nodes", site.nodes],
    ["--num_gpus", site.devicesPerNode],
    ...train,
  ];
}

function hostfile({ site }: TrainingInput): { path: string; text: string } {
  return { path: "hostfile", text: site.hosts.map((host) => `${host} slots=${site.devicesPerNode}\n`).join("") };
}

/** train_batch_size = micro batch · accumulation · data-parallel ranks. */
function config({ model, job: { layout, precision, training } }: TrainingInput): Readonly<Record<string, unknown>> {
  const ranks = layout.dp;
  return {
    train_batch_size: layout.globalBatchSize,
    train_micro_batch_size_per_gpu: layout.microBatchSize,
    gradient_accumulation_steps: numMicroBatches(layout),
    bf16: { enabled: precision.name === "bf16" },
    fp16: { enabled: precision.name === "fp16" },
    gradient_clipping: training.gradClip,
    zero_optimization: {
      stage: layout.zero,
      ...(layout.zero >= 1 && ranks > 1
        ? { overlap_comm: true, reduce_bucket_size: 5e8, allgather_bucket_size: 5e8 }
        : {}),
    },
    ...(layout.ep > 1
      ? {
          expert_parallel: {
            enabled: true,
            autoep_size: layout.ep,
            preset_model: model.topkMethod === "noaux_tc" ? "deepseek_v3" : "deepseek_v2",
          },
        }
      : {}),
    optimizer: {
      type: "AdamW",
      params: {
        lr: training.lr,
        betas: [training.beta1, training.beta2],
        eps: training.adamEps,
        weight_decay: training.weightDecay,
      },
    },
    scheduler: scheduler(training),
  };
}

function scheduler(training: TrainingInput["job"]["training"]): Readonly<Record<string, unknown>> {
  if (training.schedule === "constant") {
    return { type: "WarmupLR", params: { warmup_max_lr: training.lr, warmup_num_steps: training.warmupSteps } };
  }
  return {
    type: "WarmupCosineLR",
    params: {
      total_num_steps: training.scheduleSteps,
      warmup_num_steps: training.warmupSteps,
      cos_min_ratio: minLrShare(training),
    },
  };
}

/** The loop: random windows of the token file, one optimizer step after the accumulated passes, checkpoints. */
function program({ job: { layout, training } }: TrainingInput): string {
  const recompute = layout.recompute === "full" ? ["    model.gradient_checkpointing_enable()"] : [];
  return [
    '"""The training run of PLAN.md: a Hugging Face model under DeepSpeed 0.19.6 (transformers 5 or newer)."""',
    "",
    "import argparse",
    "import os",
    "",
    "import deepspeed",
    "import numpy",
    "import torch",
    "from transformers import AutoConfig, AutoModelForCausalLM",
    "",
    `SEQ_LEN = ${literal(layout.seqLen)}`,
    `STEPS = ${literal(training.steps)}`,
    `SAVE_EVERY = ${literal(training.checkpointEvery)}`,
    `SEED = ${literal(training.seed)}`,
    `STAGE_3 = ${literal(layout.zero === 3)}`,
    "",
    "",
    "def build_model(ds_config):",
    "    config = AutoConfig.from_pretrained(os.path.dirname(os.path.abspath(__file__)))",
    "    with deepspeed.zero.Init(config_dict_or_path=ds_config, enabled=STAGE_3):",
    "        model = AutoModelForCausalLM.from_config(config)",
    "    model.config.use_cache = False",
    ...recompute,
    "    return model",
    "",
    "",
    "def draw_batch(tokens, generator, size, device):",
    "    starts = generator.integers(0, len(tokens) - SEQ_LEN - 1, size)",
    "    rows = numpy.stack([tokens[start : start + SEQ_LEN] for start in starts])",
    "    return torch.from_numpy(rows.astype(numpy.int64)).to(device)",
    "",
    "",
    "def main():",
    "    parser = argparse.ArgumentParser()",
    '    parser.add_argument("--local_rank", type=int, default=int(os.environ.get("LOCAL_RANK", 0)))',
    '    parser.add_argument("--deepspeed", required=True)',
    '    parser.add_argument("--data", required=True)',
    '    parser.add_argument("--out", required=True)',
    "    args = parser.parse_args()",
    "    deepspeed.init_distributed()",
    "    torch.manual_seed(SEED)",
    "    model = build_model(args.deepspeed)",
    "    engine, _, _, _ = deepspeed.initialize(",
    "        model=model, model_parameters=model.parameters(), config=args.deepspeed",
    "    )",
    '    folder = os.path.join(args.out, "checkpoints")',
    "    engine.load_checkpoint(folder)",
    "    first = engine.global_steps",
    "    generator = numpy.random.default_rng([SEED, first, torch.distributed.get_rank()])",
    '    tokens = numpy.memmap(args.data, dtype=numpy.int32, mode="r")',
    "    for step in range(first, STEPS):",
    "        for _ in range(engine.gradient_accumulation_steps()):",
    "            size = engine.train_micro_batch_size_per_gpu()",
    "            ids = draw_batch(tokens, generator, size, engine.device)",
    "            loss = engine(input_ids=ids, labels=ids).loss",
    "            engine.backward(loss)",
    "            engine.step()",
    "        if torch.distributed.get_rank() == 0:",
    '            print(f"step {step + 1} loss {loss.item():.4f}", flush=True)',
    "        if (step + 1) % SAVE_EVERY == 0 or step + 1 == STEPS:",
    "            engine.save_checkpoint(folder)",
    "",
    "",
    'if __name__ == "__main__":',
    "    main()",
    "",
  ].join("\n");
}

function notes({ model, job }: TrainingInput): string[] {
  return [
    "The router's balance (bias steps, sequence-wise loss) is not trained: transformers has neither for this model.",
    ...(model.nMtpLayers > 0 ? ["transformers builds this model without its MTP layers."] : []),
    ...(job.layout.ep > 1
      ? ["AutoEP needs transformers 5; change EP between runs with a universal checkpoint only."]
      : []),
    ...(job.training.schedule === "wsd" ? ["DeepSpeed has no WSD schedule; a cosine takes its place."] : []),
    ...warnSchedule(job.training),
  ];
}
