/** Errors, element types and random numbers that every room may use. Runs anywhere. */

export {
  BLOCK_TYPES,
  blockElementsOf,
  decodeBlocks,
  dtypeOfBlocks,
  encodeBlocks,
  isBlockType,
  typeForRows,
  type BlockType,
  type WritableBlockType,
} from "./blocks/block-codec.ts";
export { bytesOf, DTYPES, fromBf16Bits, toBf16Bits } from "./dtype.ts";
export type { DType, DTypeInfo } from "./dtype.ts";
export {
  ConfigError,
  DisposedError,
  DtypeError,
  FathomError,
  FormatError,
  InternalError,
  invariant,
  IoError,
  MemoryError,
  nearest,
  NumericError,
  ShapeError,
  UnsupportedError,
} from "./errors.ts";
export { fromE4m3Bits, fromE8m0Bits, fromF16Bits, toE4m3Bits, toE8m0BitsUp, toF16Bits } from "./float-formats.ts";
export { decodeFp4Rows, decodeFp8Rows, encodeFp8Rows, FP8_BLOCK, type ScaleFormat } from "./fp8-blocks.ts";
export { decodeInt8Rows, encodeInt8Rows, int8Groups } from "./int8-rows.ts";
export { philox4x32, Rng, streamKey } from "./rng.ts";
export type { RngState } from "./rng.ts";
