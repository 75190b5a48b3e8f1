/** Data that needs no file system: the order of windows, batches, the split, the catalogue and the form of verse. */

export {
  type Batch,
  type BatchShape,
  type DataPosition,
  evaluationBatches,
  type TokenStream,
  TrainBatches,
  type TrainBatchOptions,
} from "./batches.ts";
export { CORPORA, type Corpus, findCorpus, tarballName } from "./catalogue.ts";
export { createPermutation } from "./permutation.ts";
export type { DataProgress, ReportProgress } from "./progress.ts";
export { createSplit } from "./split.ts";
export { type VerseForm, verseForm } from "./verse.ts";
