/** File formats: safetensors. Only bytes, names, shapes and dtypes; what they mean is said elsewhere. */

export { readText, writeWhole, type FilePort, type ReadableFile, type WritableFile } from "./file-port.ts";
export {
  readSafetensorsHeader,
  tensorBytes,
  type SafetensorsDType,
  type SafetensorsHeader,
  type TensorInfo,
} from "./safetensors-header.ts";
export { openTensors, type LocatedTensor, type TensorReader } from "./safetensors-reader.ts";
export { writeSafetensors, type TensorSource } from "./safetensors-writer.ts";
