/** Rules between the settings that tell the families of DeepSeek apart: which go together, and in what measure. */

import type { CrossRule } from "./cross-rules.ts";
import type { ModelSettings } from "./rows.ts";

const isMoe = (m: ModelSettings): boolean => m.nDenseLayers < m.nLayers;

/** A rule about the model alone. */
function rule(
  parameter: keyof ModelSettings,
  broken: (model: ModelSettings) => boolean,
  text: (model: ModelSettings) => string,
  cure: string,
): CrossRule {
  return {
    parameter: `model.${parameter}`,
    broken: ({ model }) => broken(model),
    rule: ({ model }) => text(model),
    cure,
  };
}

/** Settings that act with some kinds of attention only, and the value that leaves them out. */
const ACTS_WITH = {
  windowSize: { off: 0, kinds: ["gqa", "csa"] },
  indexNHeads: { off: 0, kinds: ["mla", "csa"] },
  oLoraRank: { off: 0, kinds: ["csa"] },
  hcMult: { off: 1, kinds: ["csa"] },
  nHashLayers: { off: 0, kinds: ["csa"] },
} as const;

const ATTENTION: readonly CrossRule[] = Object.entries(ACTS_WITH).map(([name, { off, kinds }]) => {
  const parameter = name as keyof typeof ACTS_WITH;
  return rule(
    parameter,
    (m) => m[parameter] !== off && !kinds.some((kind) => kind === m.attention),
    (m) => `must be ${off} with attention ${m.attention}`,
    `leave it out, or set attention to ${kinds.join(" or ")}`,
  );
});

const HEADS: readonly CrossRule[] = [
  rule(
    "nHeads",
    (m) => m.attention === "gqa" && m.headDim === Math.floor(m.dim / m.nHeads) && m.dim % m.nHeads !== 0,
    (m) => `must divide dim (${m.dim}) with attention gqa`,
    "choose a divisor, or give head_dim; mla has no such rule",
  ),
  rule(
    "nKvHeads",
    (m) => m.attention === "gqa" && (m.nKvHeads === 0 || m.nHeads % m.nKvHeads !== 0),
    (m) => `must divide n_heads (${m.nHeads}) with attention gqa`,
    "choose a divisor: n_heads itself is full multi-head attention",
  ),
  rule(
    "nKvHeads",
    (m) => m.attention === "mla" && m.nKvHeads !== 0 && m.nKvHeads !== m.nHeads,
    (m) => `must be 0 or n_heads (${m.nHeads}) with attention mla, whose heads share one latent`,
    "leave it out or set attention to gqa",
  ),
  rule(
    "nKvHeads",
    (m) => m.attention === "csa" && m.nKvHeads !== 1,
    () => "must be 1 with attention csa, whose one head is both key and value",
    "leave it out",
  ),
  rule(
    "headDim",
    (m) => m.attention === "mla" && m.headDim !== 0,
    () => "must be 0 with attention mla",
    "set qk_nope_head_dim, qk_rope_head_dim and v_head_dim, or attention to gqa",
  ),
  rule(
    "headDim",
    (m) => m.attention !== "mla" && m.headDim < 2,
    (m) => `must be at least 2 with attention ${m.attention}`,
    "raise dim, lower n_heads or give head_dim",
  ),
  rule(
    "headDim",
    (m) => m.attention !== "mla" && (m.qkNopeHeadDim + m.qkRopeHeadDim !== m.headDim || m.vHeadDim !== m.headDim),
    (m) =>
      `must be qk_nope_head_dim + qk_rope_head_dim (${m.qkNopeHeadDim + m.qkRopeHeadDim}) and v_head_dim (${m.vHeadDim}) with attention ${m.attention}`,
    "give head_dim alone",
  ),
  rule(
    "qkNopeHeadDim",
    (m) => m.attention === "mla" && m.qkNopeHeadDim === 0,
    () => "must be at least 1 with attention mla",
    "the default is 128",
  ),
];

const EXPERTS: readonly CrossRule[] = [
  rule(
    "nRoutedExperts",
    (m) => isMoe(m) && m.nRoutedExperts === 0,
    (m) => `must be at least 1, since ${m.nLayers - m.nDenseLayers} layers are MoE`,
    "raise it, or n_dense_layers to n_layers",
  ),
  rule(
    "nActivatedExperts",
    (m) => isMoe(m) && m.nActivatedExperts === 0,
    (m) => `must be at least 1, since ${m.nLayers - m.nDenseLayers} layers are MoE`,
    "raise it, or n_dense_layers to n_layers",
  ),
  rule(
    "nHashLayers",
    (m) => m.nHashLayers > 0 && m.nHashLayers > m.nLayers - m.nDenseLayers,
    (m) => `must be at most the ${m.nLayers - m.nDenseLayers} MoE layers`,
    "lower n_hash_layers",
  ),
  rule(
    "expertDtype",
    (m) => m.expertDtype === "fp4" && (m.moeInterDim % 32 !== 0 || m.dim % 32 !== 0),
    (m) => `must be null unless dim (${m.dim}) and moe_inter_dim (${m.moeInterDim}) are multiples of 32`,
    "leave it out: one scale of fp4 covers 32 values",
  ),
];

const COMPRESSED: readonly CrossRule[] = [
  rule(
    "compressRatios",
    (m) => m.attention === "csa" && m.compressRatios.length !== m.nLayers + m.nMtpLayers,
    (m) => `must have one value for each of the ${m.nLayers + m.nMtpLayers} layers, MTP layers last`,
    "give as many ratios as n_layers + n_mtp_layers",
  ),
  rule(
    "compressRatios",
    (m) => m.compressRatios.some((ratio) => !Number.isInteger(ratio) || ratio === 1),
    () => "must be 0 or whole numbers of at least 2",
    "V4 has 0, 4 and 128",
  ),
  rule(
    "compressRatios",
    (m) => m.attention !== "csa" && m.compressRatios.length > 0,
    (m) => `must be empty with attention ${m.attention}`,
    "leave it out or set attention to csa",
  ),
  rule(
    "oGroups",
    (m) => m.nHeads % m.oGroups !== 0,
    (m) => `must divide n_heads (${m.nHeads})`,
    "V4-Flash has 8 groups of 8 heads",
  ),
  rule(
    "qLoraRank",
    (m) => m.qLoraRank === 0 && (m.attention === "csa" || m.indexNHeads > 0),
    () => "must be above 0 with attention csa or an indexer, which read the query latent",
    "V3.2 has 1536",
  ),
  rule(
    "oLoraRank",
    (m) => m.attention === "csa" && m.oLoraRank === 0,
    () => "must be above 0 with attention csa",
    "V4 has 1024",
  ),
  rule(
    "indexNHeads",
    (m) => m.indexNHeads === 0 && m.compressRatios.includes(4),
    () => "must be above 0 where compress_ratios has 4, whose entries the indexer selects",
    "V4 has 64",
  ),
];

const WHOLE: readonly CrossRule[] = [
  rule(
    "architecture",
    (m) => m.architecture === "encoder" && (m.attention !== "gqa" || isMoe(m) || m.nMtpLayers > 0 || m.vision !== null),
    () => "must be decoder with mla, csa, MoE layers, MTP or vision",
    "an encoder has attention gqa and only dense layers",
  ),
];

export const FAMILY_RULES: readonly CrossRule[] = [...ATTENTION, ...HEADS, ...EXPERTS, ...COMPRESSED, ...WHOLE];
