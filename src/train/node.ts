/** Training from and to the local disk. */

export { CheckpointFolder, SavedRun, type DataReference, type RunDescription } from "./checkpoint.ts";
export { lockRun } from "./run-lock.ts";
export { prepareText, type PreparedText } from "./text.ts";
export { keepYoungGenerationSmall } from "./young-generation.ts";
