/**
 * Activations that a layer keeps for backward, tensor by tensor. One table: the rows of the sheet and the lines of the
 * ledger are made from it.
 *
 * **Source:** MLA and MoE: the tensors of the Megatron-MoE-ModelZoo estimator for DeepSeek (2,236 MiB for a layer of
 * V3 at 4,096 tokens). GPT: Korthikanti et al. 2022, table 2 (34·s·b·h + 5·a·s²·b). Logits: float32 and their gradient.
 */

import type { FormulaRow, InputRow } from "./formula.ts";
import type { PrecisionRecipe } from "./precision.ts";
import type { AttentionShape, FfnShape, LayerKind, ModelShape } from "./shape.ts";

/** Which tokens of a micro-batch a rank holds of a tensor, and of which part of its width. */
type Split =
  /** Split by sequence where sequence parallelism is on; else whole on each tensor-parallel rank. */
  | "sequence"
  /** Cut by heads or hidden width over the tensor-parallel ranks. */
  | "width"
  /** Tokens that are sent to this rank's experts, whole in width. */
  | "routed"
  /** The same, cut by the experts' hidden width. */
  | "routed-width";

export interface ActivationTensor {
  readonly name: string;
  /** Elements per token (per routed token for the last two splits), in names of the kind's dims. */
  readonly elements: string;
  /** Bytes of one element; `a` is the activation's width in the precision recipe. */
  readonly bytes: "a" | number;
  readonly split: Split;
  /** `input` is all that whole-layer recomputation keeps; `cheap` is what selective recomputation drops. */
  readonly keep: "input" | "always" | "cheap";
}

const row = (
  name: string,
  elements: string,
  split: Split,
  keep: ActivationTensor["keep"] = "always",
  bytes: "a" | number = "a",
): ActivationTensor => ({ name, elements, bytes, split, keep });

const MLA: readonly ActivationTensor[] = [
  row("input", "d", "sequence", "input"),
  row("norm", "d", "sequence", "cheap"),
  row("q_down", "q_rank", "sequence"),
  row("q_norm", "q_rank", "sequence", "cheap"),
  row("kv_down", "kv_rank", "sequence"),
  row("kv_norm", "kv_rank", "sequence", "cheap"),
  row("q", "heads * (nope + rope)", "width", "cheap"),
  row("k", "heads * (nope + rope)", "width", "cheap"),
  row("v", "heads * v_dim", "width", "cheap"),
  row("attention_out", "heads * v_dim", "width"),
  row("log_sum_exp", "heads", "width", "always", 4),
  row("residual", "d", "sequence"),
];

/** What the indexer keeps besides: its queries, key and weights, and the places of the chosen positions as int32. */
const INDEXER: readonly ActivationTensor[] = [
  row("index_q", "index_heads * index_dim", "sequence"),
  row("index_k", "index_dim", "sequence"),
  row("index_weights", "index_heads", "sequence"),
  row("index_chosen", "min(index_topk, seq)", "sequence", "always", 4),
];

const GQA: readonly ActivationTensor[] = [
  row("input", "d", "sequence", "input"),
  row("norm", "d", "sequence", "cheap"),
  row("q", "heads * head_dim", "width"),
  row("k", "kv_heads * head_dim", "width"),
  row("v", "kv_heads * head_dim", "width"),
  row("attention_out", "heads * head_dim", "width"),
  row("log_sum_exp", "heads", "width", "always", 4),
  row("residual", "d", "sequence"),
];

const UNFUSED: readonly ActivationTensor[] = [
  row("input", "d", "sequence", "input"),
  row("attention_in", "d", "sequence"),
  row("q", "heads * head_dim", "width"),
  row("k", "heads * head_dim", "width"),
  row("scores", "heads * seq", "width", "cheap"),
  row("scores_mask", "heads * seq", "width", "cheap", 1),
  row("scores_dropped", "heads * seq", "width", "cheap"),
  row("v", "heads * head_dim", "width"),
  row("attention_out", "heads * head_dim", "width"),
  row("attention_mask", "d", "sequence", "always", 1),
];

const SWIGLU: readonly ActivationTensor[] = [
  row("ffn_norm", "d", "sequence", "cheap"),
  row("gate_up", "2 * width", "width"),
  row("product", "width", "width", "cheap"),
];

const GELU: readonly ActivationTensor[] = [
  row("ffn_residual", "d", "sequence"),
  row("ffn_in", "d", "sequence"),
  row("gelu_in", "width", "width"),
  row("gelu_out", "width", "width"),
  row("ffn_mask", "d", "sequence", "always", 1),
];

const MOE: readonly ActivationTensor[] = [
  row("ffn_norm", "d", "sequence", "cheap"),
  row("router_probs", "experts", "sequence"),
  row("row_map", "experts", "sequence", "always", 8),
  row("shared_gate_up", "2 * shared", "width"),
  row("shared_product", "shared", "width", "cheap"),
  row("routed_in", "d", "routed"),
  row("routed_gate_up", "2 * width", "routed-width"),
  row("routed_product", "width", "routed-width", "cheap"),
  row("routed_out", "d", "routed"),
];

/** What an MTP layer keeps besides: the two normed halves that its projection reads. */
const MTP: readonly ActivationTensor[] = [row("mtp_in", "2 * d", "sequence")];

const ATTENTION: Readonly<Record<AttentionShape["kind"], readonly ActivationTensor[]>> = {
  mla: MLA,
  gqa: GQA,
  unfused: UNFUSED,
};
const FFN: Readonly<Record<FfnShape["kind"], readonly ActivationTensor[]>> = { swiglu: SWIGLU, gelu: GELU, moe: MOE };

/** Tensors that a layer of this kind keeps of each micro-batch; those of width 0 are left out. */
export function activationTensors({ name, attention, ffn }: LayerKind): readonly ActivationTensor[] {
  const tensors = [...(name === "mtp" ? MTP : []), ...attentionTensors(attention), ...FFN[ffn.kind]];
  const hasQLatent = attention.kind === "mla" && attention.qLoraRank > 0;
  const hasShared = ffn.kind === "moe" && ffn.sharedWidth > 0;
  return tensors.filter(
    (tensor) =>
      (hasQLatent || !/^q_(down|norm)$/.test(tensor.name)) && (hasShared || !tensor.name.startsWith("shared_")),
  );
}

function attentionTensors(attention: AttentionShape): readonly ActivationTensor[] {
  const tensors = ATTENTION[attention.kind];
  return attention.kind === "mla" && attention.indexer !== undefined ? [...tensors, ...INDEXER] : tensors;
}

type Dim = readonly [name: string, value: number, meaning: string];

/** Dims of a kind by their names in formulas. */
export function kindDims({ attention, ffn }: LayerKind): readonly Dim[] {
  return [...attentionDims(attention), ...ffnDims(ffn)];
}

function attentionDims(attention: AttentionShape): readonly Dim[] {
  const heads: Dim = ["heads", attention.nHeads, "attention heads"];
  if (attention.kind !== "mla") {
    return [
      heads,
      ["kv_heads", attention.nKvHeads, "key-value heads"],
      ["head_dim", attention.headDim, "width of a head"],
    ];
  }
  return [
    heads,
    ["q_rank", attention.qLoraRank, "width of the query latent"],
    ["kv_rank", attention.kvLoraRank, "width of the key-value latent"],
    ["nope", attention.qkNopeHeadDim, "query-key width without position"],
    ["rope", attention.qkRopeHeadDim, "query-key width with rotary position"],
    ["v_dim", attention.vHeadDim, "value width of a head"],
    ...indexerDims(attention.indexer),
  ];
}

function indexerDims(indexer: { nHeads: number; headDim: number; topK: number } | undefined): readonly Dim[] {
  if (indexer === undefined) return [];
  return [
    ["index_heads", indexer.nHeads, "heads of the indexer"],
    ["index_dim", indexer.headDim, "width of a head of the indexer"],
    ["index_topk", indexer.topK, "positions that the indexer leaves to a query"],
  ];
}

function ffnDims(ffn: FfnShape): readonly Dim[] {
  const width: Dim = ["width", ffn.width, "hidden width of the FFN or of one expert"];
  if (ffn.kind !== "moe") return [width];
  return [
    width,
    ["experts", ffn.nExperts, "routed experts"],
    ["active", ffn.nActivated, "routed experts of a token"],
    ["shared", ffn.sharedWidth, "hidden width of the shared experts"],
  ];
}

const K22 = "Korthikanti et al. 2022";
const MODEL_ZOO = "Megatron-MoE-ModelZoo, deepseek memory estimator";

/** The dims of each kind as inputs: `moe.width`. */
export function dimInputs({ kinds }: ModelShape): InputRow[] {
  return kinds.flatMap((kind) =>
    kindDims(kind).map(([name, , meaning]) => ({ name: `${kind.name}.${name}`, unit: "", meaning })),
  );
}

/** Per kind: bytes of each tensor and micro-batch on a rank, their sums, and what the recompute setting keeps. */
export function activationRows(shape: ModelShape, { keptBytes = {} }: PrecisionRecipe): FormulaRow[] {
  return [
    {
      name: "tokens",
      formula: "micro_batch * seq / cp",
      unit: "tokens",
      meaning: "tokens of a micro-batch on a context-parallel rank",
    },
    {
      name: "tokens.sequence",
      formula: "tokens / sp",
      unit: "tokens",
      meaning: "those of them that a rank holds where the sequence is split over tensor-parallel ranks",
    },
    ...shape.kinds.flatMap((kind) => kindRows(kind, keptBytes)),
  ];
}

function kindRows(kind: LayerKind, keptBytes: Readonly<Record<string, number>>): FormulaRow[] {
  const k = kind.name;
  const tensors = activationTensors(kind);
  const names = tensors.map(({ name }) => `${k}.act.${name}`);
  const again = tensors.filter(({ keep }) => keep === "cheap");
  const cheap = again.map(({ name }) => `${k}.act.${name}`);
  const tensorFormula = tensorFormulas(kind);
  const bytes = { unit: "bytes", source: kind.attention.kind === "unfused" ? K22 : MODEL_ZOO };
  return [
    ...(kind.ffn.kind === "moe"
      ? [
          {
            name: `${k}.routed_tokens`,
            formula: `tokens.sequence * etp * ${k}.active`,
            unit: "tokens",
            meaning: "token copies that reach a rank's experts when the load is even",
          },
        ]
      : []),
    ...tensors.map((tensor) => ({
      ...bytes,
      name: `${k}.act.${tensor.name}`,
      formula: tensorFormula({ ...tensor, bytes: keptBytes[tensor.name] ?? tensor.bytes }),
      meaning: `activation ${tensor.name} of a ${k} layer and one micro-batch`,
    })),
    {
      ...bytes,
      name: `${k}.act`,
      formula: names.join(" + "),
      meaning: `all that a ${k} layer keeps of one micro-batch`,
    },
    {
      ...bytes,
      name: `${k}.act.made`,
      formula: tensors.map(tensorFormula).join(" + "),
      meaning: "the same tensors in the activation's own width, as they are computed",
    },
    {
      ...bytes,
      name: `${k}.act.made_again`,
      formula: again.length === 0 ? "0" : again.map(tensorFormula).join(" + "),
      meaning: "what selective recomputation computes again, in that width",
    },
    {
      ...bytes,
      name: `${k}.act.cheap`,
      formula: cheap.length === 0 ? "0" : cheap.join(" + "),
      meaning: "what selective recomputation computes again",
    },
    {
      ...bytes,
      name: `${k}.act.kept`,
      formula: `recompute.full * ${k}.act.input + (1 - recompute.full) * (${k}.act - recompute.selective * ${k}.act.cheap)`,
      meaning: `what a ${k} layer keeps under the recompute setting`,
    },
    {
      ...bytes,
      name: `${k}.act.working`,
      formula: `if(recompute.full, ${k}.act.made - ${k}.act.input, recompute.selective * ${k}.act.made_again)`,
      meaning: "what is there again while one layer runs backward",
    },
  ];
}

/** Bytes of one tensor on a rank: elements per token × tokens ÷ ranks × bytes. */
function tensorFormulas(kind: LayerKind): (tensor: ActivationTensor) => string {
  const dims = new Set(kindDims(kind).map(([name]) => name));
  const tokens = {
    sequence: "tokens.sequence",
    width: "tokens / tp",
    routed: `${kind.name}.routed_tokens`,
    "routed-width": `${kind.name}.routed_tokens / etp`,
  };
  return ({ elements, split, bytes }) => {
    const perToken = elements.replace(/[a-z_]\w*/g, (name) => (dims.has(name) ? `${kind.name}.${name}` : name));
    const width = bytes === "a" ? "activation_bytes" : String(bytes);
    return `${width} * ${perToken} * ${tokens[split]}`;
  };
}
