/** The tokenizer with files, training and the native encoder. */
export { loadTokenizer, saveTokenizer } from "./files.ts";
export { trainTokenizer, type TrainTokenizerOptions } from "./training.ts";
