/** Causal attention by its plain O(n²) formula, and decoding from a cache of latents. */

import { invariant } from "../../core/errors.ts";
import { roundToBf16, spanOf, type Call } from "./call.ts";
import type { Floats } from "./stored.ts";

interface Shape {
  readonly n: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
  readonly qStride: number;
  readonly k1: Strides;
  readonly k2: Strides;
  readonly v: Strides;
  readonly scale: number;
  readonly toBf16: boolean;
}

/** Where a value stands: `row` · position + `head` · head. */
interface Strides {
  readonly row: number;
  readonly head: number;
}

function shapeOf(call: Call<"attention"> | Call<"attentionBackward">): Shape {
  const [heads, kvHeads] = [call.count("heads"), call.count("kvHeads")];
  invariant(heads === kvHeads || heads % kvHeads === 0, `attention.kvHeads divides ${heads} heads, got ${kvHeads}`);
  invariant(heads === kvHeads || !call.has("k2"), "attention.k2 is left out where heads share keys");
  return {
    n: call.count("n"),
    heads,
    kvHeads,
    nopeDim: call.count("nopeDim"),
    ropeDim: call.count("ropeDim"),
    valueDim: call.count("valueDim"),
    qStride: call.count("qStride"),
    k1: { row: call.count("k1Row"), head: call.count("k1Head") },
    k2: { row: call.count("k2Row"), head: call.count("k2Head") },
    v: { row: call.count("vRow"), head: call.count("vHead") },
    scale: call.number("scale"),
    toBf16: call.flag("compute"),
  };
}

/** Every row belongs to a sequence. */
function sequenceStarts(call: Call<"attention"> | Call<"attentionBackward">, { n, ropeDim }: Shape): Int32Array {
  const starts = call.starts("seqStarts", call.count("seqs"), n);
  invariant(starts[0] === 0 && starts.at(-1) === n, `attention.seqStarts span 0 to ${n}`);
  invariant(ropeDim === 0 || call.has("k2"), `attention.k2 is given when ropeDim is ${ropeDim}`);
  return starts;
}

const headSpan = (n: number, heads: number, width: number, { row, head }: Strides): number =>
  n === 0 ? 0 : (n - 1) * row + spanOf(heads, width, head);

/** The head of keys and values that a head reads. */
const kvHeadOf = ({ heads, kvHeads }: Shape, head: number): number => Math.floor((head * kvHeads) / heads);

/** [rows, width] of one head from `start` on; into the columns `at` … of rows `packedWidth` wide. */
function packHead(
  source: Floats,
  { start, rows, head, width, strides, toBf16 }: HeadRows,
  packed: Float64Array,
  packedWidth: number,
  at: number,
): void {
  for (let i = 0; i < rows; i++) {
    const from = (start + i) * strides.row + head * strides.head;
    for (let c = 0; c < width; c++) {
      packed[i * packedWidth + at + c] = toBf16 ? roundToBf16(source[from + c]!) : source[from + c]!;
    }
  }
}

interface HeadRows {
  readonly start: number;
  readonly rows: number;
  readonly head: number;
  readonly width: number;
  readonly strides: Strides;
  readonly toBf16: boolean;
}

/** The queries, keys and values of one head of one sequence, dense. */
interface Head {
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v: Float64Array;
}

interface Sources {
  readonly q: Floats;
  readonly k1: Floats;
  readonly k2: Floats | undefined;
  readonly v: Floats;
}

function packSequence({ q, k1, k2, v }: Sources, shape: Shape, start: number, rows: number, head: number): Head {
  const { nopeDim, ropeDim, valueDim, toBf16 } = shape;
  const qkDim = nopeDim + ropeDim;
  const packed = {
    q: new Float64Array(rows * qkDim),
    k: new Float64Array(rows * qkDim),
    v: new Float64Array(rows * valueDim),
  };
  const at = { start, rows, head, toBf16 };
  packHead(q, { ...at, width: qkDim, strides: { row: shape.qStride, head: qkDim } }, packed.q, qkDim, 0);
  const kv = { ...at, head: kvHeadOf(shape, head) };
  packHead(k1, { ...kv, width: nopeDim, strides: shape.k1 }, packed.k, qkDim, 0);
  if (k2 !== undefined) packHead(k2, { ...at, width: ropeDim, strides: shape.k2 }, packed.k, qkDim, nopeDim);
  packHead(v, { ...kv, width: valueDim, strides: shape.v }, packed.v, valueDim, 0);
  return packed;
}

/** Σ_c a[i, c] · b[j, c] of matrices `width` wide. */
function dotRows(a: Float64Array, i: number, b: Float64Array, j: number, width: number): number {
  let total = 0;
  for (let c = 0; c < width; c++) total += a[i * width + c]! * b[j * width + c]!;
  return total;
}

/** out[i, :] += factor · x[j, :] of matrices `width` wide. */
function addScaledRow(out: Float64Array, i: number, x: Float64Array, j: number, width: number, factor: number): void {
  for (let c = 0; c < width; c++) out[i * width + c]! += factor * x[j * width + c]!;
}

/**
 * out_i = Σ_{j ≤ i} softmax_j(scale · q_i·k_j) v_j, lse_i = log Σ_j exp(scale · q_i·k_j).
 * Source: Vaswani et al. 2017, equation 1; the keys as in DeepSeek-V2 report, equations 9–17.
 */
export function attention(call: Call<"attention">): void {
  const shape = shapeOf(call);
  const { n, heads, kvHeads, nopeDim, ropeDim, valueDim, scale, toBf16 } = shape;
  const qkDim = nopeDim + ropeDim;
  const sources = {
    q: call.floats("q", spanOf(n, heads * qkDim, shape.qStride)),
    k1: call.floats("k1", headSpan(n, kvHeads, nopeDim, shape.k1)),
    k2: call.optionalFloats("k2", headSpan(n, heads, ropeDim, shape.k2)),
    v: call.floats("v", headSpan(n, kvHeads, valueDim, shape.v)),
  };
  const starts = sequenceStarts(call, shape);
  const out = call.floats("out", n * heads * valueDim);
  const lse = call.floats("lse", n * heads);
  for (let s = 0; s + 1 < starts.length; s++) {
    const start = starts[s]!;
    const rows = starts[s + 1]! - start;
    for (let h = 0; h < heads; h++) {
      const { q, k, v } = packSequence(sources, shape, start, rows, h);
      const powers = new Float64Array(rows);
      const row = new Float64Array(valueDim);
      for (let i = 0; i < rows; i++) {
        let max = -Infinity;
        for (let j = 0; j <= i; j++) {
          powers[j] = scale * dotRows(q, i, k, j, qkDim);
          max = Math.max(max, powers[j]!);
        }
        let total = 0;
        row.fill(0);
        for (let j = 0; j <= i; j++) {
          const power = Math.exp(powers[j]! - max);
          total += power;
          addScaledRow(row, 0, v, j, valueDim, toBf16 ? roundToBf16(power) : power);
        }
        const at = (start + i) * heads + h;
        lse[at] = max + Math.log(total);
        for (let c = 0; c < valueDim; c++) out[at * valueDim + c] = row[c]! / total;
      }
    }
  }
}

/**
 * With p = exp(scale · q·k − lse): dv_j = Σ_i p_ij dOut_i, ds_ij = p_ij (dOut_i·v_j − delta_i),
 * dq_i = scale · Σ_j ds_ij k_j, dk_j = scale · Σ_i ds_ij q_i. Source: Dao et al. 2022, FlashAttention, appendix B.2.
 */
export function attentionBackward(call: Call<"attentionBackward">): void {
  const shape = shapeOf(call);
  const { n, heads, kvHeads, nopeDim, ropeDim, valueDim, scale, toBf16 } = shape;
  const qkDim = nopeDim + ropeDim;
  const spans = {
    q: spanOf(n, heads * qkDim, shape.qStride),
    k1: headSpan(n, kvHeads, nopeDim, shape.k1),
    k2: headSpan(n, heads, ropeDim, shape.k2),
    v: headSpan(n, kvHeads, valueDim, shape.v),
  };
  const sources = {
    q: call.floats("q", spans.q),
    k1: call.floats("k1", spans.k1),
    k2: call.optionalFloats("k2", spans.k2),
    v: call.floats("v", spans.v),
  };
  const starts = sequenceStarts(call, shape);
  const out = call.floats("out", n * heads * valueDim);
  const lse = call.floats("lse", n * heads);
  const dOut = call.floats("dOut", n * heads * valueDim);
  const delta = call.floats("delta", n * heads);
  const qStrides = { row: shape.qStride, head: qkDim };
  const dq = new HeadGradient(call.floats("dq", spans.q), nopeDim + ropeDim, qStrides);
  const dk1 = new HeadGradient(call.floats("dk1", spans.k1), nopeDim, shape.k1);
  const dk2Out = call.optionalFloats("dk2", spans.k2);
  const dk2 = dk2Out && new HeadGradient(dk2Out, ropeDim, shape.k2);
  const dv = new HeadGradient(call.floats("dv", spans.v), valueDim, shape.v);
  for (let s = 0; s + 1 < starts.length; s++) {
    const start = starts[s]!;
    const rows = starts[s + 1]! - start;
    for (let h = 0; h < heads; h++) {
      const { q, k, v } = packSequence(sources, shape, start, rows, h);
      const dOutHead = new Float64Array(rows * valueDim);
      const dOutRows = { start, rows, head: h, width: valueDim, strides: { row: heads * valueDim, head: valueDim } };
      packHead(dOut, { ...dOutRows, toBf16 }, dOutHead, valueDim, 0);
      const gradient = { q: new Float64Array(q.length), k: new Float64Array(k.length), v: new Float64Array(v.length) };
      for (let i = 0; i < rows; i++) {
        const at = (start + i) * heads + h;
        let dot = 0;
        for (let c = 0; c < valueDim; c++) dot += dOut[at * valueDim + c]! * out[at * valueDim + c]!;
        delta[at] = dot;
        for (let j = 0; j <= i; j++) {
          const p = Math.exp(scale * dotRows(q, i, k, j, qkDim) - lse[at]!);
          const ds = p * (dotRows(dOutHead, i, v, j, valueDim) - dot);
          const dsFactor = scale * (toBf16 ? roundToBf16(ds) : ds);
          addScaledRow(gradient.v, j, dOutHead, i, valueDim, toBf16 ? roundToBf16(p) : p);
          addScaledRow(gradient.q, i, k, j, qkDim, dsFactor);
          addScaledRow(gradient.k, j, q, i, qkDim, dsFactor);
        }
      }
      dq.add({ start, rows, head: h }, gradient.q, qkDim, 0);
      const kvHead = kvHeadOf(shape, h);
      dk1.add({ start, rows, head: kvHead }, gradient.k, qkDim, 0);
      dk2?.add({ start, rows, head: h }, gradient.k, qkDim, nopeDim);
      dv.add({ start, rows, head: kvHead }, gradient.v, valueDim, 0);
    }
  }
  for (const gradient of [dq, dk2]) gradient?.store(n, heads);
  for (const gradient of [dk1, dv]) gradient.store(n, kvHeads);
}

/** Sums the gradient of one operand in float64; heads that share values (head stride 0) add up. */
class HeadGradient {
  readonly #target: Floats;
  readonly #width: number;
  readonly #strides: Strides;
  readonly #total: Float64Array;

  constructor(target: Floats, width: number, strides: Strides) {
    this.#target = target;
    this.#width = width;
    this.#strides = strides;
    this.#total = new Float64Array(target.length);
  }

  /** Adds the columns `at` … of a dense matrix `packedWidth` wide. */
  add(
    { start, rows, head }: { start: number; rows: number; head: number },
    packed: Float64Array,
    packedWidth: number,
    at: number,
  ): void {
    for (let i = 0; i < rows; i++) {
      const to = (start + i) * this.#strides.row + head * this.#strides.head;
      for (let c = 0; c < this.#width; c++) this.#total[to + c]! += packed[i * packedWidth + at + c]!;
    }
  }

  /** Writes the operand's own columns; the others of its rows stay as they are. */
  store(n: number, heads: number): void {
    for (let i = 0; i < n; i++) {
      for (let h = 0; h < heads; h++) {
        const at = i * this.#strides.row + h * this.#strides.head;
        for (let c = 0; c < this.#width; c++) this.#target[at + c] = this.#total[at + c]!;
      }
    }
  }
}

/** pool[slots[n], :] = [latent[n, :] ‖ rope[n, :]] */
export function cacheWrite(call: Call<"cacheWrite">): void {
  const n = call.count("n");
  const [latentDim, ropeDim] = [call.count("latentDim"), call.count("ropeDim")];
  const [latentStride, ropeStride] = [call.count("latentStride"), call.count("ropeStride")];
  const poolRows = call.count("poolRows");
  const width = latentDim + ropeDim;
  const latent = call.floats("latent", spanOf(n, latentDim, latentStride));
  const rope = call.floats("rope", spanOf(n, ropeDim, ropeStride));
  const slots = call.indices("slots", n, poolRows);
  const pool = call.floats("pool", poolRows * width);
  for (let r = 0; r < n; r++) {
    const to = slots[r]! * width;
    pool.set(latent.subarray(r * latentStride, r * latentStride + latentDim), to);
    pool.set(rope.subarray(r * ropeStride, r * ropeStride + ropeDim), to + latentDim);
  }
}

/** The pool rows of a sequence's `length` tokens. */
function cachedRows(kernel: string, table: Int32Array, length: number, blockSize: number, poolRows: number): number[] {
  const rows = Array.from({ length }, (_, j) => table[Math.floor(j / blockSize)]! * blockSize + (j % blockSize));
  const outside = rows.find((row) => row < 0 || row >= poolRows);
  invariant(outside === undefined, `${kernel}.blockTable names blocks of ${poolRows} pool rows, got row ${outside}`);
  return rows;
}

/**
 * out[b, h, :] = Σ_j softmax_j(scale · (qLatent·c_j + qRope·k_j)) c_j over the cached rows of sequence b; 0 without rows.
 * Source: DeepSeek-V2 report 2.1.2 (W_UK and W_UV absorbed into the query and the output).
 */
export function mlaDecode(call: Call<"mlaDecode">): void {
  const [batch, heads] = [call.count("batch"), call.count("heads")];
  const [latentDim, ropeDim] = [call.count("latentDim"), call.count("ropeDim")];
  const [ropeRow, ropeHead] = [call.count("ropeRow"), call.count("ropeHead")];
  const [blockSize, maxBlocks] = [call.count("blockSize"), call.count("maxBlocks")];
  const poolRows = call.count("poolRows");
  const scale = call.number("scale");
  const width = latentDim + ropeDim;
  const qLatent = call.floats("qLatent", batch * heads * latentDim);
  const qRope = call.floats("qRope", batch === 0 ? 0 : (batch - 1) * ropeRow + spanOf(heads, ropeDim, ropeHead));
  const pool = call.floats("pool", poolRows * width);
  const blockTable = call.ints("blockTable", batch * maxBlocks);
  const seqLens = call.indices("seqLens", batch, maxBlocks * blockSize + 1);
  const out = call.floats("out", batch * heads * latentDim);
  for (let b = 0; b < batch; b++) {
    const table = blockTable.subarray(b * maxBlocks, (b + 1) * maxBlocks);
    const rows = cachedRows("mlaDecode", table, seqLens[b]!, blockSize, poolRows);
    for (let h = 0; h < heads; h++) {
      const latentAt = (b * heads + h) * latentDim;
      const ropeAt = b * ropeRow + h * ropeHead;
      const scores = rows.map((row) => {
        let dot = 0;
        for (let c = 0; c < latentDim; c++) dot += qLatent[latentAt + c]! * pool[row * width + c]!;
        for (let c = 0; c < ropeDim; c++) dot += qRope[ropeAt + c]! * pool[row * width + latentDim + c]!;
        return scale * dot;
      });
      const max = scores.reduce((a, score) => Math.max(a, score), -Infinity);
      const total = scores.reduce((a, score) => a + Math.exp(score - max), 0);
      const sum = new Float64Array(latentDim);
      for (const [j, row] of rows.entries()) {
        const p = Math.exp(scores[j]! - max) / total;
        for (let c = 0; c < latentDim; c++) sum[c]! += p * pool[row * width + c]!;
      }
      out.set(sum, latentAt);
    }
  }
}

/**
 * out[b, h, :] = Σ_j softmax_j(scale · q·k_j) v_j over the cached rows of sequence b; 0 without rows.
 * Source: Ainslie et al. 2023 (arXiv 2305.13245), 2.2.
 */
export function gqaDecode(call: Call<"gqaDecode">): void {
  const [batch, heads, kvHeads] = [call.count("batch"), call.count("heads"), call.count("kvHeads")];
  const [headDim, poolRows] = [call.count("headDim"), call.count("poolRows")];
  const [blockSize, maxBlocks] = [call.count("blockSize"), call.count("maxBlocks")];
  const scale = call.number("scale");
  invariant(heads % kvHeads === 0, `gqaDecode.kvHeads divides ${heads} heads, got ${kvHeads}`);
  const q = call.floats("q", batch * heads * headDim);
  const pool = call.floats("pool", poolRows * 2 * kvHeads * headDim);
  const blockTable = call.ints("blockTable", batch * maxBlocks);
  const seqLens = call.indices("seqLens", batch, maxBlocks * blockSize + 1);
  const out = call.floats("out", batch * heads * headDim);
  for (let b = 0; b < batch; b++) {
    const table = blockTable.subarray(b * maxBlocks, (b + 1) * maxBlocks);
    const rows = cachedRows("gqaDecode", table, seqLens[b]!, blockSize, poolRows);
    for (let h = 0; h < heads; h++) {
      const at = (b * heads + h) * headDim;
      const kvHead = Math.floor((h * kvHeads) / heads);
      const keyAt = (row: number): number => (row * 2 * kvHeads + kvHead) * headDim;
      const scores = rows.map((row) => {
        let dot = 0;
        for (let c = 0; c < headDim; c++) dot += q[at + c]! * pool[keyAt(row) + c]!;
        return scale * dot;
      });
      const max = scores.reduce((a, score) => Math.max(a, score), -Infinity);
      const total = scores.reduce((a, score) => a + Math.exp(score - max), 0);
      const sum = new Float64Array(headDim);
      for (const [j, row] of rows.entries()) {
        const p = Math.exp(scores[j]! - max) / total;
        const valueAt = keyAt(row) + kvHeads * headDim;
        for (let c = 0; c < headDim; c++) sum[c]! += p * pool[valueAt + c]!;
      }
      out.set(sum, at);
    }
  }
}
