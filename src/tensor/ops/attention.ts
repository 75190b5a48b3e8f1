import { ShapeError } from "../../core/errors.ts";
import { apply, valueOf, type Input, type OpRow } from "../op.ts";
import type { KernelNumbers } from "../../kernels/index.ts";
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

/** Of `attention` and of its gradients. */
type AttentionNumbers = Record<keyof KernelNumbers<"attention">, number>;

type Attrs = AttentionAttrs & { readonly compute: Compute };

const latentNumbers = (attrs: Attrs, n: number, seqs: number): AttentionNumbers => {
  const { heads, nopeDim, ropeDim, valueDim } = attrs;
  const perHead = nopeDim + valueDim;
  return {
    n,
    heads,
    kvHeads: heads,
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

/** The values half of [k ‖ v] per head: the same rows, nopeDim elements further. */
function values(kv: Tensor, nopeDim: number): { handle: number; offset: number; dtype: Tensor["dtype"] } {
  return { handle: kv.handle, offset: kv.offset + nopeDim, dtype: kv.dtype };
}

/** Multiply-adds of both products over causal pairs, at most n²/2 per head; `width` is that of keys and values together. */
function coreFlops(inputs: readonly Input[], heads: number, width: number): { forward: number; backward: number } {
  const n = valueOf(inputs[0]).rows;
  const seqs = Math.max(1, valueOf(inputs[3]).size - 1);
  const core = heads * width * n * (n / seqs);
  return { forward: core, backward: 2.5 * core };
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
      latentNumbers(attrs, q!.rows, seqStarts!.size - 1),
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
      latentNumbers(attrs, q!.rows, seqStarts!.size - 1),
    );
  },
  saves: { inputs: [0, 1, 2, 3], outputs: [0] },
  flops: (inputs, { heads, nopeDim, ropeDim, valueDim }) => coreFlops(inputs, heads, nopeDim + ropeDim + valueDim),
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

export interface GroupedAttentionAttrs {
  readonly heads: number;
  /** Divides `heads`; neighbouring queries share a head of keys and values. */
  readonly kvHeads: number;
  readonly headDim: number;
  readonly softmaxScale: number;
}

type GroupedAttrs = GroupedAttentionAttrs & { readonly compute: Compute };

function groupedNumbers(attrs: GroupedAttrs, n: number, seqs: number): AttentionNumbers {
  const { heads, kvHeads, headDim } = attrs;
  const [row, head] = [kvHeads * headDim, headDim];
  return {
    ...{ n, heads, kvHeads, nopeDim: headDim, ropeDim: 0, valueDim: headDim, seqs, qStride: heads * headDim },
    ...{ k1Row: row, k1Head: head, k2Row: 0, k2Head: 0, vRow: row, vHead: head },
    ...{ scale: attrs.softmaxScale, compute: computeId(attrs.compute) },
  };
}

const groupedAttentionRow: OpRow<GroupedAttrs> = {
  name: "groupedAttention",
  source: "Ainslie et al. 2023 (arXiv 2305.13245), 2.2; Dao 2023 (arXiv 2307.08691)",
  outputs: ([q, k, v], { heads, kvHeads, headDim }) => {
    const { rows, columns } = valueOf(q);
    const fits =
      columns === heads * headDim &&
      heads % kvHeads === 0 &&
      [k, v].every((x) => valueOf(x).rows === rows && valueOf(x).columns === kvHeads * headDim);
    if (!fits) {
      const expected = `q, k and v of ${rows} rows for ${heads} and ${kvHeads} heads of ${headDim}`;
      throw new ShapeError("groupedAttention", expected, valueOf(k).shape);
    }
    return [{ shape: [rows, columns] }];
  },
  extras: ([q], { heads }) => [{ shape: [valueOf(q).rows, heads] }],
  forward: ({ scope, inputs, outputs: [out], extras: [lse], attrs }) => {
    const [q, k, v, seqStarts] = inputs.map(valueOf);
    scope.run(
      "attention",
      { q: q!, k1: k!, v: v!, seqStarts: seqStarts!, out: out!, lse: lse! },
      groupedNumbers(attrs, q!.rows, seqStarts!.size - 1),
    );
  },
  backward: (call) => {
    const { attrs, scope } = call;
    const [q, k, v, seqStarts] = call.inputs.map(valueOf);
    using scratch = scope.child();
    const delta = scratch.empty([q!.rows, attrs.heads], q!.dtype);
    scope.run(
      "attentionBackward",
      {
        ...{ q: q!, k1: k!, v: v!, seqStarts: seqStarts! },
        ...{ out: call.outputs[0]!, lse: call.extras[0]!, dOut: call.grad(0)!, delta },
        ...{ dq: call.whole(0), dk1: call.whole(1), dv: call.whole(2) },
      },
      groupedNumbers(attrs, q!.rows, seqStarts!.size - 1),
    );
  },
  saves: { inputs: [0, 1, 2, 3], outputs: [0] },
  flops: (inputs, { heads, headDim }) => coreFlops(inputs, heads, 2 * headDim),
};

/**
 * Causal attention inside each sequence with a head of keys and values for each heads / kvHeads queries. q [N, H·d],
 * k and v [N, G·d], seqStarts [S+1] (i32). Returns [N, H·d].
 */
export function groupedAttention(
  scope: Scope,
  inputs: { q: Tensor; k: Tensor; v: Tensor; seqStarts: Tensor },
  attrs: GroupedAttentionAttrs,
): Tensor {
  const { q, k, v, seqStarts } = inputs;
  return apply(groupedAttentionRow, scope, [q, k, v, seqStarts], { ...attrs, compute: scope.compute })[0]!;
}
