/** Checkpoints from one format to another, on the local disk. */

export {
  planConversion,
  type Conversion,
  type ConversionProgress,
  type ConvertOptions,
  type ConvertPort,
} from "./convert.ts";
export { GGUF_DTYPES } from "./gguf-output.ts";
export { HF_DTYPES } from "./hf-output.ts";
export { verifyConversion, type Verified } from "./verify.ts";
