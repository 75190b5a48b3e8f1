/** Checkpoints from one format to another, on the local disk. */

export {
  planConversion,
  type CheckResult,
  type Conversion,
  type ConversionProgress,
  type ConvertOptions,
  type ConvertPort,
} from "./convert.ts";
export { ggufKeys } from "./gguf-metadata.ts";
export { GGUF_DTYPES } from "./gguf-output.ts";
export { ggufVocabulary } from "./gguf-vocabulary.ts";
export { HF_DTYPES } from "./hf-output.ts";
export { ggufFirstPart } from "./plan.ts";
export { verifyConversion, type Verified } from "./verify.ts";
