/** Cases of weights in every type in which they are stored: views, scales with partial blocks, batches, experts apart. */

import {
  bytesOf,
  decodeBlocks,
  DTYPES,
  fromE4m3Bits,
  isBlockType,
  type DType,
  type Rng,
} from "../../src/core/index.ts";
import type { KernelName } from "../../src/kernels/index.ts";
import { bf16, blank, f32, f64, i32, runKernel, stored, uniform, type Field } from "../helpers/kernel-calls.ts";
import { absolute, indices, reference, startsOf, type Case, type Cases } from "./case.ts";
import { bound } from "./tolerances.ts";

const STORED = (Object.keys(DTYPES) as DType[]).filter((dtype) => dtype !== "f64" && dtype !== "i32");

/** Where a block has f16 numbers that are factors of its values. */
const HALVES: { readonly [D in DType]?: readonly number[] } = {
  ...{ f16: [0], q8_0: [0], q4_0: [0], q5_0: [0], iq4_nl: [0], q6_k: [208] },
  ...{ q4_1: [0, 2], q5_1: [0, 2], q4_k: [0, 2], q5_k: [0, 2] },
};

/** Random blocks of values that are neither large nor tiny. */
function randomBlocks(rng: Rng, dtype: DType, elements: number): Uint8Array {
  if (dtype === "f32") return new Uint8Array(Float32Array.from(uniform(rng, elements)).buffer);
  const length = bytesOf(dtype, elements);
  const words = Uint32Array.from({ length: Math.ceil(length / 4) }, () => rng.nextUint32());
  const bytes = new Uint8Array(words.buffer).slice(0, length);
  const { blockBytes } = DTYPES[dtype];
  for (let at = 0; at < bytes.length; at += blockBytes) {
    for (const half of HALVES[dtype] ?? []) bytes[at + half + 1] = 0x20 | (bytes[at + half + 1]! & 0x8f);
    if (dtype === "bf16") bytes[at + 1] = 0x3e | (bytes[at + 1]! & 0x80);
    if (dtype === "f8_e4m3") bytes[at]! &= 0xbf;
    if (dtype === "mxfp4") bytes[at] = 120 + (bytes[at]! % 8);
  }
  return bytes;
}

function decode(dtype: DType, bytes: Uint8Array): Float32Array {
  if (dtype === "i8") return Float32Array.from(new Int8Array(bytes.buffer));
  if (dtype === "f8_e4m3") return Float32Array.from(bytes, fromE4m3Bits);
  const type = dtype.toUpperCase();
  if (!isBlockType(type)) throw new Error(`no codec of ${dtype}`);
  const values = new Float32Array((bytes.length / DTYPES[dtype].blockBytes) * DTYPES[dtype].blockElements);
  decodeBlocks(type, bytes, values);
  return values;
}

interface Matrix {
  readonly rows: number;
  readonly width: number;
  readonly dtype: DType;
  readonly bytes: Uint8Array;
  readonly values: Float32Array;
  readonly scale: Field | undefined;
  readonly scaleRows: number;
  readonly scaleCols: number;
}

/** A whole matrix; bytes and fp8 have scales, and so has one plain type. */
function randomMatrix(rng: Rng, dtype: DType, rows: number, width: number, side = [8, 32]): Matrix {
  const bytes = randomBlocks(rng, dtype, rows * width);
  const values = decode(dtype, bytes);
  const none = { rows, width, dtype, bytes, values, scale: undefined, scaleRows: 0, scaleCols: 0 };
  if (dtype !== "f8_e4m3" && dtype !== "i8" && dtype !== "f16") return none;
  const [scaleRows, scaleCols] = side as [number, number];
  const across = Math.ceil(width / scaleCols);
  const scales = Float32Array.from(uniform(rng, Math.ceil(rows / scaleRows) * across));
  const scaled = values.map((value, i) => {
    const [row, col] = [Math.floor(i / width), i % width];
    return value * scales[Math.floor(row / scaleRows) * across + Math.floor(col / scaleCols)]!;
  });
  return { ...none, values: scaled, scale: { ...f32(scales), front: 0 }, scaleRows, scaleCols };
}

/** The matrix from an element on: its bytes in front count as the operand's buffer. */
function from(matrix: Matrix, element: number): { operand: Field; plain: Float64Array; front: number } {
  const plain = Float64Array.from(matrix.values.subarray(element));
  const bytes = matrix.bytes.subarray(bytesOf(matrix.dtype, element));
  return { operand: fieldOf(matrix.dtype, bytes, element), plain, front: element };
}

/** A field of plain types holds numbers, one of the others bytes. */
function fieldOf(dtype: DType, bytes: Uint8Array, front: number): Field {
  const isPlain = dtype === "f32" || dtype === "bf16";
  return isPlain ? { dtype, values: decode(dtype, bytes.slice()), front } : stored(dtype, bytes, front);
}

const FORMS = [0, 1, 2].flatMap((compute) => [0, 1].map((transB) => ({ compute, transB })));
const familyOf = (compute: number): "matmulBf16" | "matmulF32" => (compute === 0 ? "matmulF32" : "matmulBf16");

/** Columns that fit blocks, and what a row has beyond them. */
function widths(dtype: DType): { cols: number; pad: number } {
  const { blockElements } = DTYPES[dtype];
  return blockElements === 1 ? { cols: 70, pad: 3 } : { cols: 2 * Math.max(blockElements, 64), pad: blockElements };
}

function* matmul(rng: Rng): Iterable<Case<"matmul">> {
  for (const dtype of STORED) {
    const { cols, pad } = widths(dtype);
    let turn = 0;
    for (const m of [1, 3, 9, 33]) {
      for (const form of FORMS) {
        const [batch, rows] = turn++ % 3 === 1 ? [3, 16] : [1, m === 1 ? 70 : 21];
        yield product(rng, { dtype, m, rows, cols, pad, batch, ...form });
      }
    }
  }
  // So many small matrices that each is the work of one thread.
  for (const dtype of ["q8_0", "f8_e4m3"] as const) {
    const shape = { dtype, m: 11, rows: 5, cols: 64, pad: 32, batch: 10 };
    for (const form of FORMS) yield product(rng, { ...shape, ...form });
  }
  // More than one run of a row, more than one scale of 128 × 128 with partial ones at the edges.
  for (const dtype of ["q8_0", "q4_k", "f8_e4m3"] as const) {
    for (const m of [2, 10]) {
      const shape = { dtype, m, rows: 150, cols: 2304, pad: 256, batch: 1, side: [128, 128] };
      for (const form of [FORMS[1]!, FORMS[4]!]) yield product(rng, { ...shape, ...form });
    }
  }
  yield* bf16Products(rng);
}

/** A left factor in bf16, of one row, of some, and transposed: with rows of weights in f32, and in one other form each. */
function* bf16Products(rng: Rng): Iterable<Case<"matmul">> {
  for (const [i, dtype] of STORED.entries()) {
    const { cols, pad } = widths(dtype);
    for (const [j, m] of [1, 3, 9].entries()) {
      const shape = { dtype, m, rows: 21, cols, pad, batch: 1, left: "bf16" } as const;
      for (const form of [FORMS[1]!, FORMS[(i + 2 * j) % FORMS.length]!]) yield product(rng, { ...shape, ...form });
    }
  }
}

interface ProductShape {
  readonly dtype: DType;
  readonly m: number;
  readonly rows: number;
  readonly cols: number;
  readonly pad: number;
  readonly batch: number;
  readonly compute: number;
  readonly transB: number;
  readonly side?: readonly number[];
  /** Type of the left factor. Default f32. */
  readonly left?: "bf16";
}

/** A product with a view that leaves out rows above and, but for blocks, columns to the left of the whole. */
function product(rng: Rng, shape: ProductShape): Case<"matmul"> {
  const { dtype, m, rows, cols, pad, batch, compute, transB, side, left } = shape;
  const ldb = cols + pad;
  const whole = randomMatrix(rng, dtype, batch * rows + 2, ldb, side === undefined ? undefined : [...side]);
  const { operand, plain, front } = from(whole, ldb + pad);
  const [n, k] = transB === 1 ? [rows, cols] : [cols, rows];
  const numbers = {
    ...{ m, n, k, transA: m === 9 ? 1 : 0, transB, lda: m === 9 ? m : k + 1, ldb, ldc: n + 1, batch },
    ...{ strideA: m * (k + 1), strideB: rows * ldb, strideC: m * (n + 1), accumulate: m % 2, compute },
  };
  const fields = {
    a: (left === undefined ? f32 : bf16)(uniform(rng, batch * m * (k + 1))),
    b: operand,
    c: f32(uniform(rng, batch * m * (n + 1))),
    bScale: whole.scale,
  };
  const { scaleRows, scaleCols } = whole;
  const magnitude = (): Float64Array =>
    runKernel(
      reference,
      "matmul",
      absolute<"matmul">({ ...fields, b: { ...f64(plain), front }, bScale: undefined }),
      numbers,
    ).c;
  return {
    title: `${left ?? "f32"} · ${dtype}, ${JSON.stringify(numbers)}`,
    fields,
    numbers: { ...numbers, scaleRows, scaleCols },
    bounds: () => ({ c: bound(familyOf(compute), magnitude(), { terms: k + 1 }) }),
  };
}

/** Rows of each expert: none, a few that are decoded as they are multiplied, more. */
const LOAD = [3, 0, 17, 1, 0];

function* groupedMatmul(rng: Rng): Iterable<Case<"groupedMatmul">> {
  for (const dtype of STORED) {
    let turn = 0;
    for (const list of [0, 1]) {
      for (const { compute, transB: transW } of FORMS)
        yield grouped(rng, { dtype, list, compute, transW, turn: turn++ });
    }
  }
}

interface GroupedShape {
  readonly dtype: DType;
  readonly list: number;
  readonly compute: number;
  readonly transW: number;
  readonly turn: number;
}

function grouped(rng: Rng, { dtype, list, compute, transW, turn }: GroupedShape): Case<"groupedMatmul"> {
  const [outDim, inDim] = [19, widths(dtype).cols];
  const experts = LOAD.length;
  const offsets = startsOf(LOAD);
  const rows = offsets.at(-1)! + 1;
  const [n, k] = transW === 1 ? [inDim, outDim] : [outDim, inDim];
  const xRows = turn % 2 === 0 ? 7 : rows;
  const apart = LOAD.map(() => randomMatrix(rng, dtype, outDim, inDim));
  const stack = randomMatrix(rng, dtype, experts * outDim, inDim);
  const own = list === 1 ? apart : [stack];
  const { scaleRows, scaleCols } = stack;
  const handles = (fields: readonly Field[]): Field => ({ ...fields[0]!, list: fields });
  const weights = own.map((matrix) => from(matrix, 0).operand);
  const scales = own.map(({ scale }) => scale).filter((scale) => scale !== undefined);
  const fields = {
    x: f32(uniform(rng, xRows * k)),
    w: list === 1 ? handles(weights) : weights[0]!,
    offsets: i32(offsets),
    rowIndex: turn % 2 === 0 ? i32(indices(rng, rows, xRows)) : undefined,
    y: f32(uniform(rng, rows * n)),
    wScale: scales.length === 0 ? undefined : list === 1 ? handles(scales) : scales[0]!,
  };
  const numbers = { experts, rows, xRows, outDim, inDim, transW, accumulate: turn % 2, compute };
  const magnitude = (): Float64Array => {
    const plain = f64(own.flatMap(({ values }) => [...values]));
    const operands = absolute<"groupedMatmul">({ ...fields, w: plain, wScale: undefined });
    return runKernel(reference, "groupedMatmul", operands, numbers).y;
  };
  return {
    title: `${dtype}, list ${list}, ${JSON.stringify(numbers)}`,
    fields,
    numbers: { ...numbers, scaleRows, scaleCols, list },
    bounds: () => ({ y: bound(familyOf(compute), magnitude(), { terms: k + 1 }) }),
  };
}

/** Without bounds: rows of a table are the same numbers in every bit. */
function* embedding(rng: Rng): Iterable<Case<"embedding">> {
  const [n, vocab] = [40, 11];
  for (const dtype of STORED) {
    for (const d of [1, 3].map(
      (blocks) => blocks * (DTYPES[dtype].blockElements === 1 ? 50 : DTYPES[dtype].blockElements),
    )) {
      const whole = randomMatrix(rng, dtype, vocab + 1, d);
      const { scaleRows, scaleCols } = whole;
      const fields = {
        ids: i32(indices(rng, n, vocab)),
        table: from(whole, d).operand,
        y: blank("f32", n * d),
        scale: whole.scale,
      };
      yield { title: `${dtype}, ${n} × ${d}`, fields, numbers: { n, d, vocab, scaleRows, scaleCols } };
    }
  }
}

export const STORED_CASES: { readonly [K in KernelName]?: Cases<K> } = { matmul, groupedMatmul, embedding };
