/**
 * The kernel contract: the flat list of kernels that every backend implements, how a call is written down, and what a
 * backend owns. The plain TypeScript backend (`reference`) is the truth; the native one is compared with it.
 *
 * A call is a run of numbers: `[opcode, word count, (handle, element offset, dtype id) per operand, numbers…]`. A list
 * of calls is their concatenation, so a step can be recorded and replayed in one crossing. Handle 0 stands for an
 * operand that is left out (marked `?` below); a number marked `?` is 0 when it is left out.
 *
 * Conventions. Matrices are row-major. `n` counts rows unless said otherwise; strides are in elements. Operands marked
 * `in` are only read; `out` are written whole (or added to where the kernel has an `accumulate` number that is 1); `io`
 * are read and written. Index operands are i32; all others f32 natively (bf16 where said), and f64 in the reference for
 * central differences. A call may not write where another of its operands lies, unless said. Work is cut by shape
 * alone, so that bits do not depend on the number of threads.
 *
 * `compute` chooses the multiplication; sums are f32. 0: f32. 1: both factors rounded to bf16 (ties to even). 2: as 1,
 * but where the right factor is stored in e4m3 it is not rounded, and the left one is rounded to e4m3 in groups of 128
 * values along k, each with scale max|a| / 448. **Source:** deepseek-ai/DeepSeek-V3 inference/kernel.py (act_quant).
 *
 * Stored weights. `table`, `b` of matmul and `w` of groupedMatmul may be of any type but i32, and are read where they
 * lie. A row is a whole number of blocks, and so are offsets and strides of types in blocks. An optional float32 scale
 * belongs to the whole matrix that begins at element 0 of the weight's buffer with rows as wide as the stride: element
 * (r, c) is stored value · scale[⌊r / scaleRows⌋, ⌊c / scaleCols⌋], the scale matrix having ⌈width / scaleCols⌉
 * columns. So a view finds its scales; its rows may not run over the end of a row of the whole. fp8 checkpoints have
 * blocks of 128 × 128, int8 ones 1 × columns.
 *
 * Legend: N tokens (flat), D model dim, H heads, P qk no-position dim, R qk rope dim, U value head dim, C kv latent,
 * E experts, A activated experts per token, V vocabulary.
 */

import type { DType } from "../core/dtype.ts";

export type Handle = number;

/** `in`/`out`/`io`, with `?` when the operand may be left out. */
type Role = "in" | "out" | "io" | "in?" | "out?" | "io?";

interface KernelSpec {
  readonly op: number;
  readonly operands: Readonly<Record<string, Role>>;
  readonly numbers: readonly string[];
}

/** The block of a stored matrix that shares a scale; left out where there is no scale. */
const SCALE_BLOCK = ["scaleRows?", "scaleCols?"] as const;

export const KERNELS = {
  /** y[i] = value, for n elements. */
  fill: { op: 1, operands: { y: "out" }, numbers: ["n", "value"] },

  /** y[r, c] (+)= x[r, c] for rows × cols with row strides; converts between f32 and bf16 (and f64 in the reference). */
  copy2d: {
    op: 2,
    operands: { x: "in", y: "out" },
    numbers: ["rows", "cols", "xStride", "yStride", "accumulate"],
  },

  /** y = a + b, n elements. */
  add: { op: 3, operands: { a: "in", b: "in", y: "out" }, numbers: ["n"] },

  /** y += scale · x, n elements. */
  axpy: { op: 4, operands: { x: "in", y: "io" }, numbers: ["n", "scale"] },

  /** y[0] (+)= scale · Σ x, summed in float64 in a fixed order. */
  sum: { op: 5, operands: { x: "in", y: "out" }, numbers: ["n", "scale", "accumulate"] },

  /** y[0] = Σ x², summed in float64 in a fixed order; NaN or infinity in x shows in y. */
  sumSquares: { op: 6, operands: { x: "in", y: "out" }, numbers: ["n"] },

  /** y[r, :] = x[index[r], :], rows × d; x has xRows rows and an index outside [0, xRows) is an InternalError. */
  gatherRows: { op: 7, operands: { x: "in", index: "in", y: "out" }, numbers: ["rows", "d", "xRows"] },

  /**
   * Standard normal numbers times std: Philox4x32-10 with key (keyLo, keyHi), counter (i / 4, 0, 0, 0) and Box–Muller on
   * word pairs (0, 1) and (2, 3): u = (word + 0.5) / 2³²; r = √(−2 ln u0); values r·cos(2πu1), r·sin(2πu1).
   */
  randomNormal: { op: 8, operands: { y: "out" }, numbers: ["n", "std", "keyLo", "keyHi"] },

  /** y[n, :] = table[ids[n], :]; table [V, D] of any stored type. */
  embedding: {
    op: 10,
    operands: { ids: "in", table: "in", y: "out", scale: "in?" },
    numbers: ["n", "d", "vocab", ...SCALE_BLOCK],
  },

  /** dTable[ids[n], :] (+)= dy[n, :] in order of n; without accumulate the whole table is zeroed first. */
  embeddingBackward: {
    op: 11,
    operands: { ids: "in", dy: "in", dTable: "out" },
    numbers: ["n", "d", "vocab", "accumulate"],
  },

  /** y = x · rstd · w, rstd[n] = 1/√(mean x² + eps). x rows are xStride apart; y is [n, d] contiguous. */
  rmsNorm: {
    op: 12,
    operands: { x: "in", w: "in", y: "out", rstd: "out" },
    numbers: ["n", "d", "xStride", "eps"],
  },

  /** dx rows are dxStride apart. dw [d] is summed over rows in a fixed order. */
  rmsNormBackward: {
    op: 13,
    operands: { x: "in", w: "in", rstd: "in", dy: "in", dx: "out", dw: "out?" },
    numbers: ["n", "d", "xStride", "dxStride", "accumulateX", "accumulateW"],
  },

  /**
   * For each of `batch` matrices: C[m, n] (+)= opA(A) · opB(B), opA(A) is m × k and opB(B) is k × n.
   * transA: A is stored [k, m]; transB: B is stored [n, k]. lda/ldb/ldc are row strides as stored; strideA/B/C step from
   * one matrix of the batch to the next. A may be f32 or bf16, B of any stored type; C is f32.
   */
  matmul: {
    op: 20,
    operands: { a: "in", b: "in", c: "out", bScale: "in?" },
    numbers: [
      "m",
      "n",
      "k",
      "transA",
      "transB",
      "lda",
      "ldb",
      "ldc",
      "batch",
      "strideA",
      "strideB",
      "strideC",
      "accumulate",
      "compute",
      ...SCALE_BLOCK,
    ],
  },

  /**
   * y[r, :] (+)= W[e] · x[row(r), :] for the rows r in [offsets[e], offsets[e+1]) of each expert e.
   * W is [E, outDim, inDim]; y is [rows, outDim]. With transW, y[r, :] = W[e]ᵀ · x[row(r), :] where x has outDim columns
   * and y has inDim. row(r) = rowIndex[r] when given (x then has xRows rows), else r. An expert without rows is not read.
   * list 1: w holds E handles as float64 numbers, each of a matrix [outDim, inDim] of w's type at the start of its
   * buffer; wScale then holds the handles of their scales, likewise.
   */
  groupedMatmul: {
    op: 21,
    operands: { x: "in", w: "in", offsets: "in", rowIndex: "in?", y: "out", wScale: "in?" },
    numbers: [
      "experts",
      "rows",
      "xRows",
      "outDim",
      "inDim",
      "transW",
      "accumulate",
      "compute",
      ...SCALE_BLOCK,
      "list?",
    ],
  },

  /**
   * dW[e] (+)= Σ_r dy[dyRow(r), :]ᵀ · x[xRow(r), :] over the rows of expert e; dW [E, outDim, inDim]. xRow and dyRow read
   * xIndex / dyIndex when given. An expert without rows gets exactly 0 (or is left as it is with accumulate).
   */
  groupedMatmulBackwardW: {
    op: 22,
    operands: { x: "in", dy: "in", offsets: "in", xIndex: "in?", dyIndex: "in?", dw: "out" },
    numbers: ["experts", "rows", "xRows", "dyRows", "outDim", "inDim", "accumulate", "compute"],
  },

  /** y = silu(gate) · up · (scale[row] when given), all [n, d]. */
  siluMul: { op: 30, operands: { gate: "in", up: "in", scale: "in?", y: "out" }, numbers: ["n", "d"] },

  /** dScale[row] = Σ_d dy · silu(gate) · up. Writes dGate and dUp whole. */
  siluMulBackward: {
    op: 31,
    operands: { gate: "in", up: "in", scale: "in?", dy: "in", dGate: "out", dUp: "out", dScale: "out?" },
    numbers: ["n", "d"],
  },

  /**
   * Rotary embedding of the last ropeDim values of each head; the first headDim − ropeDim are copied. x is
   * [n, heads, headDim] with rows xStride apart, y likewise with yStride. table [maxPos, ropeDim] holds ropeDim/2 cosines
   * then ropeDim/2 sines of each position. interleave 1: pairs (2i, 2i+1); 0: pairs (i, i + ropeDim/2).
   * inverse 1 rotates by the negative angle (the backward pass).
   */
  rope: {
    op: 32,
    operands: { x: "in", table: "in", positions: "in", y: "out" },
    numbers: [
      "n",
      "heads",
      "headDim",
      "ropeDim",
      "xStride",
      "yStride",
      "maxPos",
      "interleave",
      "inverse",
      "accumulate",
    ],
  },

  /**
   * Router. scores [n, E] = softmax(logits) (scoreFunc 0) or sigmoid(logits) (1). Selection score = score + bias[e] (bias
   * may be left out). groupScore 0: no groups; 1: a group's score is its largest selection score (V2); 2: the sum of its
   * two largest (V3). The limitedGroups best groups stay, experts of the others count as −∞. idx [n, A] holds the A best
   * experts by falling selection score, ties to the lower index. weights [n, A] = score of the chosen (never biased);
   * normalize 1: divided by (their sum + 1e-20); then times routeScale.
   */
  route: {
    op: 40,
    operands: { logits: "in", bias: "in?", scores: "out", idx: "out", weights: "out" },
    numbers: ["n", "experts", "topk", "groups", "limitedGroups", "scoreFunc", "groupScore", "normalize", "routeScale"],
  },

  /** dLogits [n, E] from dWeights [n, A] and dScores [n, E] (either may be left out); the choice has no gradient. */
  routeBackward: {
    op: 41,
    operands: { scores: "in", idx: "in", dWeights: "in?", dScores: "in?", dLogits: "out" },
    numbers: ["n", "experts", "topk", "scoreFunc", "normalize", "routeScale"],
  },

  /**
   * Sorts the (token, choice) pairs by expert, stable in token order. offsets [E+1]; rowToken [n·A] token of a sorted
   * row; rowSlot [n·A] its index in idx; slotRow [n·A] the inverse of rowSlot.
   */
  moePlan: {
    op: 42,
    operands: { idx: "in", offsets: "out", rowToken: "out", rowSlot: "out", slotRow: "out" },
    numbers: ["n", "topk", "experts"],
  },

  /** y[n, :] (+)= base[n, :] (when given) + Σ_a ys[slotRow[n, a], :], added in the order of a. */
  combine: {
    op: 43,
    operands: { ys: "in", slotRow: "in", base: "in?", y: "out" },
    numbers: ["n", "topk", "d", "accumulate"],
  },

  /**
   * Balance loss α · mean over segments of Σ_e f_e P_e, per segment of T rows: f_e = E/(A·T) · (times e was chosen),
   * P_e = mean over rows of score_e / Σ_j score_j. segments [count+1] holds row starts. loss [1]; dScores [n, E].
   * Source: DeepSeek-V3 report eq. 17–20; with softmax scores it is the V2 expert-level loss.
   */
  balanceLoss: {
    op: 44,
    operands: { scores: "in", idx: "in", segments: "in", loss: "out", dScores: "out" },
    numbers: ["n", "experts", "topk", "segments", "alpha"],
  },

  /** counts[e] (+)= how often e stands in idx; n counts entries of idx (tokens · A); counts f32. */
  expertCounts: { op: 45, operands: { idx: "in", counts: "out" }, numbers: ["n", "experts", "accumulate"] },

  /** bias[e] += speed · sign(mean(counts) − counts[e]). Source: DeepSeek-V3 report 2.1.2. */
  routerBiasInto: { op: 46, operands: { counts: "in", bias: "io" }, numbers: ["experts", "speed"] },

  /**
   * Causal attention with online softmax over tiles; memory is linear in n. Head h of row i reads
   * q[i·qStride + h·(P+R)…], keys k1[j·k1Row + g·k1Head…] (P values) followed by k2[j·k2Row + h·k2Head…] (R values; k2 may
   * be left out with R = 0), values v[j·vRow + g·vHead…] (U), where g = ⌊h · kvHeads / H⌋; kvHeads divides H, and k2 is
   * left out unless it equals H. Row i sees rows j ≤ i of its own sequence;
   * seqStarts [seqs+1] spans 0…n. scale ≥ 0. A NaN or infinity in a value may reach earlier rows of its own sequence
   * (0 · ∞ in a tile), never another sequence. out [n, H, U]; lse [n, H] = log Σ exp(scale · q·k).
   */
  attention: {
    op: 50,
    operands: { q: "in", k1: "in", k2: "in?", v: "in", seqStarts: "in", out: "out", lse: "out" },
    numbers: [
      "n",
      "heads",
      "kvHeads",
      "nopeDim",
      "ropeDim",
      "valueDim",
      "seqs",
      "qStride",
      "k1Row",
      "k1Head",
      "k2Row",
      "k2Head",
      "vRow",
      "vHead",
      "scale",
      "compute",
    ],
  },

  /**
   * Gradients of `attention`, written whole with the strides of what they belong to (dk1 like k1, dv like v …; other
   * columns of those rows are left alone). dk1 and dv are sums over the heads that share them; dk2 with k2Head = 0 is the
   * sum over all heads. delta[i, h] = Σ dOut · out is workspace of [n, H].
   */
  attentionBackward: {
    op: 51,
    operands: {
      q: "in",
      k1: "in",
      k2: "in?",
      v: "in",
      seqStarts: "in",
      out: "in",
      lse: "in",
      dOut: "in",
      delta: "out",
      dq: "out",
      dk1: "out",
      dk2: "out?",
      dv: "out",
    },
    numbers: [
      "n",
      "heads",
      "kvHeads",
      "nopeDim",
      "ropeDim",
      "valueDim",
      "seqs",
      "qStride",
      "k1Row",
      "k1Head",
      "k2Row",
      "k2Head",
      "vRow",
      "vHead",
      "scale",
      "compute",
    ],
  },

  /** pool[slots[n], :] = [latent[n, 0…C) ‖ rope[n, 0…R)]; pool rows are C + R wide, latent rows latentStride apart. */
  cacheWrite: {
    op: 52,
    operands: { latent: "in", rope: "in", slots: "in", pool: "io" },
    numbers: ["n", "latentDim", "ropeDim", "latentStride", "ropeStride", "poolRows"],
  },

  /**
   * Absorbed MLA decode over a pool of fixed blocks. For sequence b and head h: score_j = scale · (qLatent·c_j + qRope·k_j)
   * over the cached rows j < seqLens[b] (row j stands in block blockTable[b, j / blockSize] at j mod blockSize), softmax,
   * out[b, h, :] = Σ p_j c_j; zeros when seqLens[b] is 0. qLatent [batch, H, C]; qRope rows start at qRope + b·ropeRow + h·ropeHead; out [batch, H, C].
   */
  mlaDecode: {
    op: 53,
    operands: { qLatent: "in", qRope: "in", pool: "in", blockTable: "in", seqLens: "in", out: "out" },
    numbers: [
      "batch",
      "heads",
      "latentDim",
      "ropeDim",
      "ropeRow",
      "ropeHead",
      "blockSize",
      "maxBlocks",
      "poolRows",
      "scale",
    ],
  },

  /**
   * Decode with keys and values in a pool of fixed blocks like that of `mlaDecode`. A pool row holds the keys of all G
   * kvHeads and then their values, [2, G, headDim]; head h reads those of g = ⌊h · G / H⌋, and G divides H.
   * out[b, h, :] = Σ p_j v_j with p = softmax(scale · q·k_j); zeros when seqLens[b] is 0. q and out [batch, H, headDim].
   */
  gqaDecode: {
    op: 54,
    operands: { q: "in", pool: "in", blockTable: "in", seqLens: "in", out: "out" },
    numbers: ["batch", "heads", "kvHeads", "headDim", "blockSize", "maxBlocks", "poolRows", "scale"],
  },

  /**
   * losses[r] = log Σ_v exp(logits[r, v]) − logits[r, target] in nats, 0 where targets[r] < 0. With dLogits:
   * scale · (softmax − onehot), 0 in ignored rows; dLogits may be the same memory as logits.
   */
  softmaxCrossEntropy: {
    op: 60,
    operands: { logits: "in", targets: "in", losses: "out", dLogits: "out?" },
    numbers: ["rows", "vocab", "scale"],
  },

  /**
   * AdamW with decoupled decay: g' = gradScale · g; m = β1 m + (1−β1) g'; v = β2 v + (1−β2) g'²;
   * p −= lr · (m/correction1 / (√(v/correction2) + eps) + weightDecay · p). copy (bf16) receives the rounded weights.
   * Source: Loshchilov & Hutter 2019, algorithm 2, as in torch.optim.AdamW.
   */
  adamwInto: {
    op: 70,
    operands: { p: "io", g: "in", m: "io", v: "io", copy: "out?" },
    numbers: ["n", "lr", "beta1", "beta2", "eps", "weightDecay", "correction1", "correction2", "gradScale"],
  },
} as const satisfies Record<string, KernelSpec>;

export type KernelName = keyof typeof KERNELS;

type OperandsOf<K extends KernelName> = (typeof KERNELS)[K]["operands"];
type OptionalOperand<K extends KernelName> = {
  [O in keyof OperandsOf<K>]: OperandsOf<K>[O] extends `${string}?` ? O : never;
}[keyof OperandsOf<K>];

/** Where an operand lies: a buffer, an offset in elements, and how to read the elements. */
export interface Operand {
  readonly handle: Handle;
  readonly offset: number;
  readonly dtype: DType;
}

export type KernelOperands<K extends KernelName> = {
  [O in Exclude<keyof OperandsOf<K>, OptionalOperand<K>>]: Operand;
} & { [O in OptionalOperand<K>]?: Operand | undefined };

type NumbersOf<K extends KernelName> = (typeof KERNELS)[K]["numbers"][number];
type OptionalNumber<N extends string> = N extends `${infer Name}?` ? Name : never;

export type KernelNumbers<K extends KernelName> = Readonly<Record<Exclude<NumbersOf<K>, `${string}?`>, number>> & {
  readonly [N in OptionalNumber<NumbersOf<K>>]?: number;
};

export interface MemoryStats {
  /** Bytes of live buffers, windows of mapped files left out. */
  readonly liveBytes: number;
  /** Largest `liveBytes` since the last reset. */
  readonly peakBytes: number;
  /** Bytes held by the pool for reuse. */
  readonly pooledBytes: number;
  /** Per-thread scratch of the kernels (packing buffers), in all. */
  readonly scratchBytes: number;
  readonly liveBuffers: number;
}

/** Memory and arithmetic. Buffers are 64-byte aligned; their content is undefined until written. */
export interface Backend {
  readonly name: "reference" | "native" | "planning";
  /** The instruction set in use, such as `avx512bf16`; `typescript` for the reference. */
  readonly isa: string;
  readonly threads: number;
  /** @throws MemoryError when the bytes cannot be had. */
  alloc(byteLength: number): Handle;
  free(handle: Handle): void;
  /**
   * A buffer over a window of a file, private and read only; windows of one file share one mapping. The file must not
   * change while it is mapped. Absent where there are no files: what is stored is then copied into a buffer.
   * @throws FormatError when the file ends before the window does, IoError when it cannot be opened or mapped.
   */
  mapFile?(path: string, byteOffset: number, byteLength: number): Handle;
  /** Copies in at most 64 MiB. @throws InternalError when the handle is dead or the range out of bounds. */
  write(handle: Handle, byteOffset: number, data: Uint8Array): void;
  /** A copy at the start of a buffer of its own. */
  read(handle: Handle, byteOffset: number, byteLength: number): Promise<Uint8Array>;
  readSync(handle: Handle, byteOffset: number, byteLength: number): Uint8Array;
  /** Runs a list of encoded calls in order; `record` makes a list to be run again. @throws InternalError on a malformed call or an operand out of bounds. */
  run(words: Float64Array): void;
  stats(): MemoryStats;
  resetPeak(): void;
}
