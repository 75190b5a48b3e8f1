/**
 * The types of GGUF: of metadata values, and of tensors with the size of their blocks.
 *
 * **Source:** ggml-org/ggml docs/gguf.md; ggml.h (ggml_type) and ggml-common.h (block structs); PyPI gguf 0.19 constants.py.
 */

export interface GgufTypeInfo {
  /** The number that stands for the type in a file. */
  readonly id: number;
  /** Elements of a row that share one block; 1 for plain types. */
  readonly blockElements: number;
  readonly blockBytes: number;
}

function type(id: number, blockElements: number, blockBytes: number): GgufTypeInfo {
  return { id, blockElements, blockBytes };
}

export const GGUF_TYPES = {
  F32: type(0, 1, 4),
  F16: type(1, 1, 2),
  Q4_0: type(2, 32, 18),
  Q4_1: type(3, 32, 20),
  Q5_0: type(6, 32, 22),
  Q5_1: type(7, 32, 24),
  Q8_0: type(8, 32, 34),
  Q8_1: type(9, 32, 40),
  Q2_K: type(10, 256, 84),
  Q3_K: type(11, 256, 110),
  Q4_K: type(12, 256, 144),
  Q5_K: type(13, 256, 176),
  Q6_K: type(14, 256, 210),
  Q8_K: type(15, 256, 292),
  IQ2_XXS: type(16, 256, 66),
  IQ2_XS: type(17, 256, 74),
  IQ3_XXS: type(18, 256, 98),
  IQ1_S: type(19, 256, 50),
  IQ4_NL: type(20, 32, 18),
  IQ3_S: type(21, 256, 110),
  IQ2_S: type(22, 256, 82),
  IQ4_XS: type(23, 256, 136),
  I8: type(24, 1, 1),
  I16: type(25, 1, 2),
  I32: type(26, 1, 4),
  I64: type(27, 1, 8),
  F64: type(28, 1, 8),
  IQ1_M: type(29, 256, 56),
  BF16: type(30, 1, 2),
  TQ1_0: type(34, 256, 54),
  TQ2_0: type(35, 256, 66),
  MXFP4: type(39, 32, 17),
  NVFP4: type(40, 64, 36),
  Q1_0: type(41, 128, 18),
} as const satisfies Readonly<Record<string, GgufTypeInfo>>;

export type GgufType = keyof typeof GGUF_TYPES;

const TYPE_BY_ID: ReadonlyMap<number, GgufType> = new Map(
  (Object.keys(GGUF_TYPES) as GgufType[]).map((name) => [GGUF_TYPES[name].id, name]),
);

/** The tensor type with a number, or undefined when there is none. */
export function ggufTypeOf(id: number): GgufType | undefined {
  return TYPE_BY_ID.get(id);
}

/**
 * Bytes of a tensor, or undefined when its rows are not whole blocks or the bytes are no safe number.
 * @param shape - outermost axis first.
 */
export function ggufBytes(name: GgufType, shape: readonly number[]): number | undefined {
  const { blockElements, blockBytes } = GGUF_TYPES[name];
  const row = shape.at(-1) ?? 1;
  if (row % blockElements !== 0) return undefined;
  const bytes = shape.slice(0, -1).reduce((product, n) => product * n, (row / blockElements) * blockBytes);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** Types of metadata values in the order of their numbers. */
export const GGUF_VALUE_TYPES = [
  "u8",
  "i8",
  "u16",
  "i16",
  "u32",
  "i32",
  "f32",
  "bool",
  "text",
  "list",
  "u64",
  "i64",
  "f64",
] as const;

export type GgufValueType = (typeof GGUF_VALUE_TYPES)[number];
/** A type of one value: everything but a list. */
export type GgufScalarType = Exclude<GgufValueType, "list">;
export type GgufNumberType = Exclude<GgufScalarType, "text">;

/** Bytes of one value; a text has 8 for its length and then its own. */
export const VALUE_BYTES: Readonly<Record<GgufNumberType, number>> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  u64: 8,
  i64: 8,
  f64: 8,
};

/** 64-bit numbers above 2^53 come as bigint. */
export type GgufScalar = number | bigint | boolean | string;

/** Reads one number of `type`; a bool is true when it is not 0. */
export function readNumber(view: DataView, at: number, type: GgufNumberType): number | bigint | boolean {
  switch (type) {
    case "u8":
      return view.getUint8(at);
    case "i8":
      return view.getInt8(at);
    case "u16":
      return view.getUint16(at, true);
    case "i16":
      return view.getInt16(at, true);
    case "u32":
      return view.getUint32(at, true);
    case "i32":
      return view.getInt32(at, true);
    case "f32":
      return view.getFloat32(at, true);
    case "bool":
      return view.getUint8(at) !== 0;
    case "u64":
      return safe(view.getBigUint64(at, true));
    case "i64":
      return safe(view.getBigInt64(at, true));
    case "f64":
      return view.getFloat64(at, true);
  }
}

function safe(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

export function writeNumber(view: DataView, at: number, type: GgufNumberType, value: number | bigint | boolean): void {
  switch (type) {
    case "u8":
    case "bool":
      return view.setUint8(at, Number(value));
    case "i8":
      return view.setInt8(at, Number(value));
    case "u16":
      return view.setUint16(at, Number(value), true);
    case "i16":
      return view.setInt16(at, Number(value), true);
    case "u32":
      return view.setUint32(at, Number(value), true);
    case "i32":
      return view.setInt32(at, Number(value), true);
    case "f32":
      return view.setFloat32(at, Number(value), true);
    case "u64":
      return view.setBigUint64(at, BigInt(value), true);
    case "i64":
      return view.setBigInt64(at, BigInt(value), true);
    case "f64":
      return view.setFloat64(at, Number(value), true);
  }
}
