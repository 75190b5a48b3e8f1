/** Parameters of learning from a larger model. */

import type { Rows } from "./row.ts";

const KD = "Hinton et al. 2015 (arXiv 1503.02531)";

export const DISTILLATION_ROWS = {
  teacher: {
    layer: "training control",
    type: "text",
    nullable: true,
    default: null,
    why: "training learns from text alone",
    meaning: "Model whose distributions are learned: a preset's name, a folder or a .gguf.",
    moves: { memory: "+ the teacher's weights", flops: "+ the teacher's forward pass", quality: "+" },
    realIn: "paper",
    source: "DeepSeek-R1 report 2.4 distils by samples",
    truth: "The R1-Distill models were trained on samples of R1, not on its distributions.",
    aliases: { other: ["teacher_model"] },
  },
  kdWeight: {
    layer: "training control",
    type: "number",
    min: 0,
    max: 1,
    default: 0.5,
    why: "text and teacher count alike",
    meaning: "Share of the teacher's loss in the training loss; the rest is the loss on the text.",
    moves: { quality: "+ then −" },
    realIn: "field",
    source: KD,
    aliases: { other: ["kd_ratio", "distillation_alpha"] },
  },
  kdTemperature: {
    layer: "training control",
    type: "number",
    above: 0,
    max: 100,
    default: 1,
    why: "the distributions as they are",
    meaning: "Both distributions' logits are divided by it, and the loss is multiplied by its square.",
    moves: { quality: "+ weight on unlikely tokens" },
    realIn: "field",
    source: KD,
  },
  kdLoss: {
    layer: "training control",
    type: "choice",
    choices: ["forward_kl", "reverse_kl", "jsd"],
    default: "forward_kl",
    why: "the usual one; it covers all that the teacher may say",
    meaning: "Divergence between teacher and student: covering, mode-seeking, or between the two.",
    moves: { quality: "variety against sharpness" },
    realIn: "field",
    source: "MiniLLM (arXiv 2306.08543); GKD (arXiv 2306.13649)",
  },
  kdTopK: {
    layer: "training control",
    type: "integer",
    unit: "tokens",
    min: 0,
    default: 64,
    why: "holds almost all of the probability at a thousandth of the size",
    meaning: "Teacher's likeliest tokens that are kept per position; 0 keeps all.",
    moves: { memory: "+ linear", quality: "+ slightly" },
    realIn: "field",
    source: "top-k logit distillation",
  },
} as const satisfies Rows;
