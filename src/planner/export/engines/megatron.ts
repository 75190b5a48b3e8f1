/** Megatron-LM: `pretrain_gpt.py` under torchrun, one process per device. Everything is a flag. */

import { ConfigError } from "../../../core/errors.ts";
import type { ModelConfig } from "../../../config/index.ts";
import { fullRecomputeShare, type Layout } from "../../layout.ts";
import { checkLimits, type TrainingLimits } from "../limits.ts";
import type { NodeProgram, TrainingInput } from "../launch.ts";
import { expand, type Phrase } from "../shell.ts";
import { plainRate, torchrun, warnSchedule } from "../torch-launcher.ts";

export const MEGATRON_LIMITS: TrainingLimits = {
  without: [],
  zero: [0, 1, 2, 3],
  schedules: ["1f1b", "interleaved"],
  precisions: ["bf16", "bf16-bf16-grads", "bf16-bf16-moments", "fp8", "fp8-bf16-states", "fp16", "fp32"],
  recompute: ["none", "selective", "full", "first-N"],
};

export function megatron(input: TrainingInput): NodeProgram {
  const { model, job, site } = input;
  checkLimits("megatron", MEGATRON_LIMITS, job);
  checkModel(model);
  checkTogether(input);
  return {
    prepare: [],
    run: [...torchrun(site, [expand("$MEGATRON_DIR/pretrain_gpt.py")]), ...flags(input)],
    environment: {
      ...(isFsdp(job.layout) ? {} : { CUDA_DEVICE_MAX_CONNECTIONS: 1 }),
      NVTE_FUSED_ATTN: 1,
      PYTORCH_CUDA_ALLOC_CONF: "expandable_segments:True",
    },
    defaults: { MEGATRON_DIR: "/opt/megatron-lm", OUT: "out" },
    required: {
      DATA: "prefix of the tokenised .bin and .idx files",
      MODEL_DIR: "folder with the model's tokenizer.json",
    },
    files: [],
    notes: notes(input),
  };
}

function flags(input: TrainingInput): Phrase[] {
  const { model, job } = input;
  return [
    ...coreFlags(model),
    ...attentionFlags(model),
    ...expertFlags(input),
    ...(model.nMtpLayers === 0
      ? []
      : [
          ["--mtp-num-layers", model.nMtpLayers],
          ["--mtp-loss-scaling-factor", model.mtpLossWeight],
        ]),
    ...layoutFlags(model, job.layout),
    ...recomputeFlags(model, job.layout),
    ...precisionFlags(input),
    ...trainingFlags(input),
    ...dataFlags(model, job.layout),
  ];
}

function coreFlags(model: ModelConfig): Phrase[] {
  return [
    ["--use-mcore-models"],
    ["--transformer-impl", "transformer_engine"],
    ["--num-layers", model.nLayers],
    ["--hidden-size", model.dim],
    ["--ffn-hidden-size", model.interDim],
    ["--normalization", "RMSNorm"],
    ["--norm-epsilon", model.rmsNormEps],
    ["--swiglu"],
    ["--disable-bias-linear"],
    ...(model.tieEmbeddings ? [] : [["--untie-embeddings-and-output-weights"]]),
    ["--init-method-std", model.initStd],
    ["--attention-dropout", "0.0"],
    ["--hidden-dropout", "0.0"],
  ];
}

function attentionFlags(model: ModelConfig): Phrase[] {
  const yarn: Phrase[] = [
    ["--rope-type", "yarn"],
    ["--rotary-scaling-factor", model.ropeFactor],
    ["--mscale", model.mscale],
    ["--mscale-all-dim", model.mscaleAllDim],
  ];
  return [
    ["--num-attention-heads", model.nHeads],
    ["--kv-channels", model.vHeadDim],
    ["--multi-latent-attention"],
    ...(model.qLoraRank === 0 ? [] : [["--q-lora-rank", model.qLoraRank]]),
    ["--kv-lora-rank", model.kvLoraRank],
    ["--qk-head-dim", model.qkNopeHeadDim],
    ["--qk-pos-emb-head-dim", model.qkRopeHeadDim],
    ["--v-head-dim", model.vHeadDim],
    ["--qk-layernorm"],
    ["--position-embedding-type", "rope"],
    ["--rotary-base", model.ropeTheta],
    ...(model.ropeFactor > 1 ? yarn : [["--rope-type", "rope"]]),
  ];
}

function expertFlags({ model, job, site }: TrainingInput): Phrase[] {
  if (model.nRoutedExperts === 0) return [];
  const groups: Phrase[] = [
    ["--moe-router-num-groups", model.nExpertGroups],
    ["--moe-router-group-topk", model.nLimitedGroups],
  ];
  const bias: Phrase[] = [
    ["--moe-router-enable-expert-bias"],
    ["--moe-router-bias-update-rate", model.routerBiasSpeed],
  ];
  return [
    ["--num-experts", model.nRoutedExperts],
    ["--moe-layer-freq", `([0]*${model.nDenseLayers}+[1]*${model.nLayers - model.nDenseLayers})`],
    ["--moe-ffn-hidden-size", model.moeInterDim],
    ...(model.nSharedExperts === 0
      ? []
      : [["--moe-shared-expert-intermediate-size", model.nSharedExperts * model.moeInterDim]]),
    ["--moe-router-topk", model.nActivatedExperts],
    ...(model.nExpertGroups > 1 ? groups : []),
    ["--moe-router-topk-scaling-factor", model.routeScale],
    ["--moe-router-score-function", model.scoreFunc],
    ...(model.scoreFunc === "softmax" ? [["--moe-router-pre-softmax"]] : []),
    ...(model.topkMethod === "noaux_tc" ? bias : []),
    ["--moe-router-load-balancing-type", "seq_aux_loss"],
    ["--moe-aux-loss-coeff", model.seqBalanceAlpha],
    ["--moe-router-dtype", "fp32"],
    ["--moe-grouped-gemm"],
    ["--moe-permute-fusion"],
    ...dispatcherFlags(job.layout.ep > site.devicesPerNode),
  ];
}

/** DeepEP pays where experts lie beyond the fast link of a node. */
function dispatcherFlags(leavesNode: boolean): Phrase[] {
  if (!leavesNode) return [["--moe-token-dispatcher-type", "alltoall"]];
  return [
    ["--moe-token-dispatcher-type", "flex"],
    ["--moe-flex-dispatcher-backend", "deepep"],
  ];
}

function layoutFlags(model: ModelConfig, layout: Layout): Phrase[] {
  const { tp, pp, vp, cp, ep, etp, sequenceParallel } = layout;
  return [
    ["--tensor-model-parallel-size", tp],
    ["--pipeline-model-parallel-size", pp],
    ["--context-parallel-size", cp],
    ["--expert-model-parallel-size", ep],
    ["--expert-tensor-parallel-size", etp],
    ...(sequenceParallel && tp > 1 ? [["--sequence-parallel"]] : []),
    ...(pp > 1 ? [["--pipeline-model-parallel-layout", pipelineLayout(model, pp * vp)]] : []),
    ...shardingFlags(layout),
  ];
}

function isFsdp(layout: Layout): boolean {
  return layout.zero >= 2;
}

function shardingFlags(layout: Layout): Phrase[] {
  if (layout.zero === 0) return [];
  const overlap: Phrase[] = [["--use-distributed-optimizer"], ["--overlap-grad-reduce"], ["--overlap-param-gather"]];
  if (!isFsdp(layout)) return overlap;
  return [
    ...overlap,
    ["--use-megatron-fsdp"],
    ["--data-parallel-sharding-strategy", layout.zero === 2 ? "optim_grads" : "optim_grads_params"],
    ["--init-model-with-meta-device"],
    ["--no-gradient-accumulation-fusion"],
  ];
}

/**
 * Megatron's picture of the pipeline: E embedding, t layer, m MTP layer, L loss, `|` between the pieces; every piece
 * gets as many letters as the others, where that is possible. `Et|(tt|)*30mL`
 *
 * **Source:** `--pipeline-model-parallel-layout` of Megatron-LM core 0.20.0.
 */
export function pipelineLayout(model: Pick<ModelConfig, "nLayers" | "nMtpLayers">, pieces: number): string {
  const counts = layersOfPieces(model.nLayers, 1 + model.nMtpLayers, pieces);
  const texts = counts.map((layers, i) => `${i === 0 ? "E" : ""}${"t".repeat(layers)}`);
  const last = `${texts.pop()!}${"m".repeat(model.nMtpLayers)}L`;
  return `${runs(texts)}${last}`;
}

/** Layers of each piece, when the embedding counts as one layer and the end of the last piece as `tail`. */
function layersOfPieces(nLayers: number, tail: number, pieces: number): number[] {
  const slots = nLayers + 1 + tail;
  const share = Math.floor(slots / pieces);
  if (share < tail) return [...spread(nLayers + 1, pieces - 1).map((n, i) => (i === 0 ? n - 1 : n)), 0];
  return spread(slots, pieces).map((n, i) => n - (i === 0 ? 1 : 0) - (i === pieces - 1 ? tail : 0));
}

/** `total` in `parts` whole numbers that differ by at most one, larger ones first. */
function spread(total: number, parts: number): number[] {
  return Array.from({ length: parts }, (_, i) => Math.floor(total / parts) + (i < total % parts ? 1 : 0));
}

/** Pieces with their separators, repeated ones folded: `Et|(tt|)*30`. */
function runs(texts: readonly string[]): string {
  let folded = "";
  for (let i = 0; i < texts.length;) {
    let end = i;
    while (texts[end] === texts[i]) end++;
    folded += end - i === 1 ? `${texts[i]!}|` : `(${texts[i]!}|)*${end - i}`;
    i = end;
  }
  return folded;
}

function recomputeFlags(model: ModelConfig, layout: Layout): Phrase[] {
  if (layout.recompute === "none") return [];
  if (layout.recompute === "selective") {
    const experts = model.nRoutedExperts === 0 ? [] : ["moe_act"];
    return [
      ["--recompute-granularity", "selective"],
      ["--recompute-modules", "mla_up_proj", "layernorm", ...experts],
    ];
  }
  const share = fullRecomputeShare(layout.recompute);
  const layersPerPiece = Math.ceil(model.nLayers / (layout.pp * layout.vp));
  return [
    ["--recompute-granularity", "full"],
    ["--recompute-method", share === 1 ? "uniform" : "block"],
    ["--recompute-num-layers", share === 1 ? 1 : Math.ceil(share * layersPerPiece)],
  ];
}

function precisionFlags({ job, device }: TrainingInput): Phrase[] {
  const { name } = job.precision;
  if (name === "fp32") return [];
  if (name === "fp16") return [["--fp16"]];
  return [
    ["--bf16"],
    ...(name === "bf16-bf16-grads" ? [["--grad-reduce-in-bf16"]] : []),
    ...(name.startsWith("fp8") ? fp8Flags(/^(g?b[23]00)/.test(device.name), name === "fp8") : []),
    ...(hasBf16Moments(name) ? bf16MomentFlags() : []),
  ];
}

/** Blocks of 128 as DeepSeek has them; Blackwell's tensor cores scale blocks of 32 themselves. */
function fp8Flags(isBlackwell: boolean, gathersFp8: boolean): Phrase[] {
  const recipe: Phrase[] = isBlackwell
    ? [["--fp8-recipe", "mxfp8"], ["--moe-router-padding-for-quantization"]]
    : [["--fp8-recipe", "blockwise"], ["--moe-router-padding-for-fp8"]];
  const gather: Phrase[] = [["--fp8-param-gather"], ...(isBlackwell ? [["--reuse-grad-buf-for-mxfp8-param-ag"]] : [])];
  return [["--fp8-format", "e4m3"], ...recipe, ...(gathersFp8 ? gather : [])];
}

/** The precision-aware optimizer, which is a distributed one. */
function hasBf16Moments(precision: string): boolean {
  return precision === "bf16-bf16-moments" || precision === "fp8";
}

function bf16MomentFlags(): Phrase[] {
  return [
    ["--use-precision-aware-optimizer"],
    ["--main-grads-dtype", "fp32"],
    ["--main-params-dtype", "fp32"],
    ["--exp-avg-dtype", "bf16"],
    ["--exp-avg-sq-dtype", "bf16"],
  ];
}

const DECAY_STYLES = { cosine: "cosine", wsd: "WSD", constant: "constant", piecewise: "cosine" } as const;

function trainingFlags({ job: { layout, training } }: TrainingInput): Phrase[] {
  return [
    ["--micro-batch-size", layout.microBatchSize],
    ["--global-batch-size", layout.globalBatchSize],
    ["--seq-length", layout.seqLen],
    ["--max-position-embeddings", layout.seqLen],
    ["--train-iters", training.steps],
    ["--optimizer", "adam"],
    ["--adam-beta1", training.beta1],
    ["--adam-beta2", training.beta2],
    ["--adam-eps", training.adamEps],
    ["--weight-decay", training.weightDecay],
    ["--clip-grad", training.gradClip],
    ["--lr", training.lr],
    ["--min-lr", plainRate(training.minLr)],
    ["--lr-decay-style", DECAY_STYLES[training.schedule]],
    ["--lr-decay-iters", training.scheduleSteps],
    ["--lr-warmup-iters", training.warmupSteps],
    ...(training.schedule === "wsd" ? [["--lr-wsd-decay-iters", training.decaySteps]] : []),
    ["--seed", training.seed],
    ["--eval-interval", training.evalEvery],
    ["--save-interval", training.checkpointEvery],
  ];
}

/** The tokenizer has fewer words than the table has rows; this divisor rounds it up to exactly the table's. */
function dataFlags(model: ModelConfig, { tp, zero }: Layout): Phrase[] {
  return [
    ["--tokenizer-type", "HuggingFaceTokenizer"],
    ["--tokenizer-model", expand("$MODEL_DIR")],
    ["--make-vocab-size-divisible-by", model.vocabSize / tp],
    ["--data-path", expand("$DATA")],
    ["--split", "99,1,0"],
    ["--cross-entropy-loss-fusion"],
    ["--cross-entropy-fusion-impl", "native"],
    ["--manual-gc"],
    ["--manual-gc-interval", 10],
    ["--log-throughput"],
    ["--ckpt-format", zero >= 2 ? "fsdp_dtensor" : "torch_dist"],
    ["--save", expand("$OUT/checkpoints")],
    ["--load", expand("$OUT/checkpoints")],
    ["--tensorboard-dir", expand("$OUT/tensorboard")],
  ];
}

/** The template's YaRN has the three values that every released model has. */
function checkModel(model: ModelConfig): void {
  if (model.ropeFactor === 1) return;
  const fixed = { betaFast: 32, betaSlow: 1, originalSeqLen: 4096 } as const;
  for (const [name, value] of Object.entries(fixed)) {
    const got = model[name as keyof typeof fixed];
    if (got !== value) throw new ConfigError(`megatron ${name}`, `must be ${value} with YaRN`, got);
  }
}

function checkTogether({ model, job }: TrainingInput): void {
  const { tp, pp, zero, sequenceParallel } = job.layout;
  if (zero === 0 && hasBf16Moments(job.precision.name)) {
    throw new ConfigError("megatron zero", `must be at least 1 with precision ${job.precision.name}`, zero);
  }
  if (zero >= 2 && pp > 1) {
    throw new ConfigError("megatron zero", "must be 0 or 1 with pipeline stages", zero, "lower zero or set pp to 1");
  }
  if (tp > 1 && !sequenceParallel && model.nRoutedExperts > 0) {
    throw new ConfigError("megatron sequence_parallel", "must be on with experts and tp above 1", false);
  }
  if (model.vocabSize % tp !== 0) {
    throw new ConfigError("megatron tp", `must divide the vocabulary (${model.vocabSize})`, tp);
  }
}

function notes({ model, job, site }: TrainingInput): string[] {
  return [
    "Set MEGATRON_DIR to a checkout of Megatron-LM core 0.20.0 unless it lies in /opt/megatron-lm.",
    "Tokenise the data with tools/preprocess_data.py of Megatron-LM; DATA is its --output-prefix with _text_document.",
    ...warnSchedule(job.training),
    ...(job.layout.ep > site.devicesPerNode ? ["The flex dispatcher needs DeepEP on every node."] : []),
    ...(model.topkMethod === "group_limited_greedy"
      ? ["Megatron scores a group of experts by its best ones' sum, DeepSeek-V2 by its single best: routing differs."]
      : []),
    ...(model.nMtpLayers > 0 ? ["Lower --mtp-loss-scaling-factor to 0.1 for the last third, as V3 did."] : []),
  ];
}
