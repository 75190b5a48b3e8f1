/** File formats: safetensors and GGUF. Only bytes, names, shapes and dtypes; what they mean is said elsewhere. */

export { readText, writeWhole, type FilePort, type ReadableFile, type WritableFile } from "./file-port.ts";
export { readGgufHeader, type GgufHeader, type GgufList, type GgufTensor, type GgufValue } from "./gguf-header.ts";
export { openGgufTensors, type GgufReader } from "./gguf-reader.ts";
export {
  GGUF_TYPES,
  ggufBytes,
  type GgufScalar,
  type GgufScalarType,
  type GgufType,
  type GgufTypeInfo,
} from "./gguf-types.ts";
export {
  splitGguf,
  writeGguf,
  writeSplitGguf,
  type GgufContent,
  type GgufEntry,
  type GgufTensorSource,
} from "./gguf-writer.ts";
export {
  readSafetensorsHeader,
  tensorBytes,
  type SafetensorsDType,
  type SafetensorsHeader,
  type SafetensorsTensor,
} from "./safetensors-header.ts";
export { openTensors, type TensorReader } from "./safetensors-reader.ts";
export { SCALE_SUFFIXES, scaledWeights, scaleNames } from "./scale-names.ts";
export type { StoredTensor } from "./stored-tensor.ts";
export type { OpenTensors } from "./tensor-reader.ts";
export { writeSafetensors, type TensorSource } from "./safetensors-writer.ts";
