/** The demonstration program of the DeepSeek-V3 repository: `generate.py` under torchrun, tensor-parallel only. */

import { ConfigError } from "../../../core/errors.ts";
import type { ModelConfig } from "../../../config/index.ts";
import { checkListed } from "../flag-rules.ts";
import { DEMO_FIELDS } from "../flags/serving.ts";
import type { NodeProgram, ServingInput } from "../launch.ts";
import { expand, type Phrase } from "../shell.ts";
import { torchrun } from "../torch-launcher.ts";

const CONFIG = "demo-config.json";

/** The width at which the demonstration gives its router a bias. */
const WIDTH_WITH_BIAS = 7168;

export function deepseekDemo(input: ServingInput): NodeProgram {
  checkJob(input);
  checkModel(input.model);
  const settings = modelArgs(input);
  checkListed("deepseek-demo", Object.keys(settings), DEMO_FIELDS);
  const isInteractive = input.cluster === undefined && input.site.nodes === 1;
  return {
    prepare: [],
    run: [...torchrun(input.site, [expand("$DEMO_DIR/generate.py")]), ...flags(isInteractive)],
    environment: {},
    defaults: { DEMO_DIR: "/opt/DeepSeek-V3/inference" },
    required: {
      CHECKPOINT: "folder that convert.py wrote",
      ...(isInteractive ? {} : { PROMPTS: "text file with one prompt a line" }),
    },
    files: [{ path: CONFIG, text: `${JSON.stringify(settings, null, 2)}\n` }],
    notes: notes(input),
  };
}

function flags(isInteractive: boolean): Phrase[] {
  return [
    ["--ckpt-path", expand("$CHECKPOINT")],
    ["--config", CONFIG],
    isInteractive ? ["--interactive"] : ["--input-file", expand("$PROMPTS")],
    ["--temperature", 0.7],
    ["--max-new-tokens", 200],
  ];
}

/** @throws ConfigError for anything but tensor parallelism over all devices. */
function checkJob({ job, model }: ServingInput): void {
  const place = "deepseek-demo";
  if (job.pp * job.dp > 1) {
    throw new ConfigError(place, "pp and dp must be 1: it only has tensor parallelism", `pp ${job.pp}, dp ${job.dp}`);
  }
  if (job.draftTokens > 0)
    throw new ConfigError(place, "draft_tokens must be 0: it drops the MTP layers", job.draftTokens);
  if (job.kvCache !== "bf16") throw new ConfigError(place, "the cache must be bf16", job.kvCache);
  for (const name of ["nRoutedExperts", "nHeads", "vocabSize", "interDim"] as const) {
    if (model[name] % job.tp === 0) continue;
    throw new ConfigError(`${place} tp`, `must divide ${name} (${model[name]})`, job.tp);
  }
  if (model.ropeFactor > 1 && job.contextTokens <= model.originalSeqLen) {
    const rule = `must be above original_seq_len (${model.originalSeqLen}), up to which the demonstration leaves YaRN out`;
    throw new ConfigError(`${place} context`, rule, job.contextTokens);
  }
}

/** @throws ConfigError for settings that model.py derives from others. */
function checkModel(model: ModelConfig): void {
  const refuse = (name: string, rule: string, got: unknown): never => {
    throw new ConfigError(`deepseek-demo ${name}`, rule, got, "choose vllm or sglang");
  };
  const hasBias = model.dim === WIDTH_WITH_BIAS;
  if ((model.topkMethod === "noaux_tc") !== hasBias) {
    refuse("topk_method", `must be noaux_tc with dim ${WIDTH_WITH_BIAS} and no other`, model.topkMethod);
  }
  if (model.normTopkProb !== (model.scoreFunc === "sigmoid")) {
    refuse("norm_topk_prob", "must be true with sigmoid scores and false with softmax", model.normTopkProb);
  }
  if (model.mscale !== model.mscaleAllDim)
    refuse("mscale", `must equal mscale_all_dim (${model.mscaleAllDim})`, model.mscale);
  if (model.dtype === "f32") refuse("dtype", "must be bf16 or fp8", model.dtype);
  if (model.tieEmbeddings) refuse("tie_embeddings", "must be false", true);
}

/** Exactly the fields of ModelArgs in inference/model.py. */
function modelArgs({ model, job }: ServingInput): Readonly<Record<string, unknown>> {
  return {
    max_batch_size: job.maxSequences,
    max_seq_len: job.contextTokens,
    dtype: model.dtype,
    ...(model.scaleFmt === null ? {} : { scale_fmt: model.scaleFmt }),
    vocab_size: model.vocabSize,
    dim: model.dim,
    inter_dim: model.interDim,
    moe_inter_dim: model.moeInterDim,
    n_layers: model.nLayers,
    n_dense_layers: model.nDenseLayers,
    n_heads: model.nHeads,
    n_routed_experts: model.nRoutedExperts,
    n_shared_experts: model.nSharedExperts,
    n_activated_experts: model.nActivatedExperts,
    n_expert_groups: model.nExpertGroups,
    n_limited_groups: model.nLimitedGroups,
    score_func: model.scoreFunc,
    route_scale: model.routeScale,
    q_lora_rank: model.qLoraRank,
    kv_lora_rank: model.kvLoraRank,
    qk_nope_head_dim: model.qkNopeHeadDim,
    qk_rope_head_dim: model.qkRopeHeadDim,
    v_head_dim: model.vHeadDim,
    original_seq_len: model.originalSeqLen,
    rope_theta: model.ropeTheta,
    rope_factor: model.ropeFactor,
    beta_fast: model.betaFast,
    beta_slow: model.betaSlow,
    mscale: model.mscale,
  };
}

function notes({ model, job }: ServingInput): string[] {
  const sizes = `--n-experts ${model.nRoutedExperts} --model-parallel ${job.tp}`;
  return [
    "Set DEMO_DIR to the folder inference of the DeepSeek-V3 repository unless it lies in /opt/DeepSeek-V3.",
    `Make CHECKPOINT with: python convert.py --hf-ckpt-path MODEL --save-path CHECKPOINT ${sizes}`,
    ...(model.nMtpLayers > 0 ? ["The demonstration drops the MTP layers."] : []),
  ];
}
