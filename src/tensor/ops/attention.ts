import { ShapeError } from "../../core/errors.ts";
import { apply, valueOf, type Input, type OpRow } from "../op.ts";
import type { Compute, Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import { computeId } from "./linear.ts";

export interface AttentionAttrs {
  readonly heads: number;
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
  readonly softmaxScale: number;
}

type Attrs = AttentionAttrs & { readonly compute: Compute };

const shared = (attrs: Attrs, n: number, seqs: number): Record<StrideName, number> => {
  const { heads, nopeDim, ropeDim, valueDim } = attrs;
  const perHead = nopeDim + valueDim;
  return {
    n,
    heads,
    nopeDim,
    ropeDim,
    valueDim,
    seqs,
    qStride: heads * (nopeDim + ropeDim),
    k1Row: heads * perHead,
    k1Head: perHead,
    k2Row: ropeDim,
    k2Head: 0,
    vRow: heads * perHead,
    vHead: perHead,
    scale: attrs.softmaxScale,
    compute: computeId(attrs.compute),
  };
};

type StrideName =
  | "n"
  | "heads"
  | "nopeDim"
  | "ropeDim"
  | "valueDim"
  | "seqs"
  | "qStride"
  | "k1Row"
  | "k1Head"
  | "k2Row"
  | "k2Head"
  | "vRow"
  | "vHead"
  | "scale"
  | "compute";

/** The values half of [k ‖ v] per head: the same rows, nopeDim elements further. */
function values(kv: Tensor, nopeDim: number): { handle: number; offset: number; dtype: Tensor["dtype"] } {
  return { handle: kv.handle, offset: kv.offset + nopeDim, dtype: kv.dtype };
}

/** Multiply-adds of both products over causal pairs, at most n²/2 per head; documents are not looked at. */
function coreFlops(inputs: readonly Input[], attrs: Attrs): number {
  const n = valueOf(inputs[0]).rows;
  const seqs = Math.max(1, valueOf(inputs[3]).size - 1);
  return attrs.heads * (attrs.nopeDim + attrs.ropeDim + attrs.valueDim) * n * (n / seqs);
}

const attentionRow: OpRow<Attrs> = {
  name: "attention",
  source: "Dao 2023 (arXiv 2307.08691); keys and values of MLA, DeepSeek-V2 report eq. 9–19",
  outputs: ([q, kv, kRope], { heads, nopeDim, ropeDim, valueDim }) => {
    const { rows, columns } = valueOf(q);
    const fits =
      columns === heads * (nopeDim + ropeDim) &&
      valueOf(kv).columns === heads * (nopeDim + valueDim) &&
      valueOf(kRope).columns === ropeDim &&
      valueOf(kv).rows === rows &&
      valueOf(kRope).rows === rows;
    if (!fits)
      throw new ShapeError("attention", `q, kv and kRope of ${rows} rows for ${heads} heads`, valueOf(kv).shape);
    return [{ shape: [rows, heads * valueDim] }];
  },
  extras: ([q], { heads }) => [{ shape: [valueOf(q).rows, heads] }],
  forward: ({ scope, inputs, outputs: [out], extras: [lse], attrs }) => {
    const [q, kv, kRope, seqStarts] = inputs.map(valueOf);
    scope.run(
      "attention",
      { q: q!, k1: kv!, k2: kRope!, v: values(kv!, attrs.nopeDim), seqStarts: seqStarts!, out: out!, lse: lse! },
      shared(attrs, q!.rows, seqStarts!.size - 1),
    );
  },
  backward: (call) => {
    const { attrs, scope } = call;
    const [q, kv, kRope, seqStarts] = call.inputs.map(valueOf);
    using scratch = scope.child();
    const delta = scratch.empty([q!.rows, attrs.heads], q!.dtype);
    const [dq, dkv, dkRope] = [0, 1, 2].map((i) => call.whole(i));
    scope.run(
      "attentionBackward",
      {
        q: q!,
        k1: kv!,
        k2: kRope!,
        v: values(kv!, attrs.nopeDim),
        seqStarts: seqStarts!,
        out: call.outputs[0]!,
        lse: call.extras[0]!,
        dOut: call.grad(0)!,
        delta,
        dq: dq!,
        dk1: dkv!,
        dk2: dkRope!,
        dv: values(dkv!, attrs.nopeDim),
      },
      shared(attrs, q!.rows, seqStarts!.size - 1),
    );
  },
  saves: { inputs: [0, 1, 2, 3], outputs: [0] },
  flops: (inputs, attrs) => {
    const core = coreFlops(inputs, attrs);
    return { forward: core, backward: 2.5 * core };
  },
};

/**
 * Causal attention inside each sequence. q [N, H·(P+R)]; kv [N, H·(P+U)], per head keys then values; kRope [N, R], shared
 * by all heads; seqStarts [S+1] (i32). Returns [N, H·U].
 */
export function attention(
  scope: Scope,
  inputs: { q: Tensor; kv: Tensor; kRope: Tensor; seqStarts: Tensor },
  attrs: AttentionAttrs,
): Tensor {
  const { q, kv, kRope, seqStarts } = inputs;
  return apply(attentionRow, scope, [q, kv, kRope, seqStarts], { ...attrs, compute: scope.compute })[0]!;
}
