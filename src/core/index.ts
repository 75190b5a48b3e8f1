/** Errors, element types and random numbers that every room may use. Runs anywhere. */

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
export { philox4x32, Rng, streamKey } from "./rng.ts";
export type { RngState } from "./rng.ts";
