/** Data on the disk: fetching, the user's files, token files. */

export { digest } from "./digest.ts";
export { createWhole } from "./disk.ts";
export { type DatasetOptions, type DocumentEncoder, openDataset, type TokenDataset } from "./dataset.ts";
export { fetchCorpus, type FetchOptions, isFetched } from "./fetch.ts";
export { TokenShard } from "./shards.ts";
export { isLeftBehind, ownerName, parseOwner } from "./owner.ts";
export { openCorpus, openFiles, openTexts, type Source } from "./source.ts";
