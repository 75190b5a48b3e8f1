/** Advice that goes round and does harm, found in a configuration or in a launch script. */

import type { ResolvedConfig } from "../config/index.ts";

interface Subject {
  readonly config: ResolvedConfig;
  /** A launch or training script; empty without one. */
  readonly script: string;
}

interface Rule {
  readonly name: string;
  readonly harms: (subject: Subject) => boolean;
  readonly warning: string;
}

/** Penalties from here on show in code and lists. */
const STRONG_PENALTY = 1.2;

const RULES: readonly Rule[] = [
  {
    name: "CUDA_LAUNCH_BLOCKING",
    harms: ({ script }) => /CUDA_LAUNCH_BLOCKING\s*["']?\]?\s*=\s*["']?1/.test(script),
    warning: "CUDA_LAUNCH_BLOCKING=1 is for debugging: every kernel waits for the one before; remove it",
  },
  {
    name: "clipping scaled gradients",
    harms: ({ script }) => {
      const clip = script.search(/clip_grad_norm_/);
      const unscale = script.search(/\.unscale_\(/);
      return clip >= 0 && /GradScaler/.test(script) && (unscale < 0 || clip < unscale);
    },
    warning: "gradients are clipped while still multiplied by the loss scale, so all are cut; call unscale_ first",
  },
  {
    name: "fp16 without loss scale",
    harms: ({ config: { parallel, training } }) => parallel.precisionRecipe === "fp16" && training.lossScale === 0,
    warning: "fp16 gradients below 6e-8 vanish without a loss scale; set training.loss_scale, or use bf16",
  },
  {
    name: "loss scale in bf16",
    harms: ({ config: { parallel, training } }) =>
      parallel.precisionRecipe.startsWith("bf16") && training.lossScale > 0,
    warning: "bf16 has the range of float32: a loss scale only skips steps; set training.loss_scale to 0",
  },
  {
    name: "strong repetition penalty",
    harms: ({ config: { generation } }) => generation.repetitionPenalty >= STRONG_PENALTY,
    warning: "a repetition penalty of 1.2 and more hurts code, lists and long answers; 1.0 to 1.1",
  },
  {
    name: "tensor parallelism across nodes",
    harms: ({ config: { parallel, hardware } }) => parallel.tp > hardware.devicesPerNode,
    warning:
      "tensor-parallel ranks on several nodes send two all-reduces a layer over the network; at most a node's devices",
  },
  {
    name: "idle devices",
    harms: ({ config: { parallel, hardware } }) =>
      hardware.devices > parallel.tp * parallel.pp * parallel.cp * parallel.dp,
    warning:
      "hardware.devices are more than the layout uses (tp × pp × cp × dp): give parallel.dp and the others, or let fathom plan search",
  },
  {
    name: "dropout",
    harms: ({ config: { training } }) => training.dropout > 0 || training.attentionDropout > 0,
    warning: "DeepSeek trains without dropout, and one pass over much text needs none; it only costs speed and loss",
  },
];

/** Sentences about what harms, none where nothing does. */
export function harmfulSettings(config: ResolvedConfig, script = ""): { name: string; warning: string }[] {
  return RULES.filter(({ harms }) => harms({ config, script })).map(({ name, warning }) => ({ name, warning }));
}
