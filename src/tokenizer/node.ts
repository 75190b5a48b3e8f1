/** The tokenizer with files, training and the native encoder. */
export { readCheckpointChat, type CheckpointChat } from "./chat-template-file.ts";
export { loadTokenizer, saveTokenizer } from "./files.ts";
export { trainTokenizer, type TrainTokenizerOptions } from "./training.ts";
