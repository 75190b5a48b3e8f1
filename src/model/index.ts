/** The DeepSeek model: forward passes over the weights of a blueprint. */

export { DeepSeekModel, type Losses, type LossScales, type PagedCache, type TrainingBatch } from "./model.ts";
export { ParameterSet, allocateParameters, initialiseParameters } from "./parameters.ts";
export { ropeTable } from "./rope-table.ts";
export { loadWeights, readTensor, tensorSource, weightSources } from "./weights.ts";
export type { ModelWeights } from "./model-weights.ts";
export { checkRequest, type MemoryBudget } from "./memory-limit.ts";
export type { RoutingSink } from "./ffn.ts";
export { cacheWidth, type CacheSlots, type Sequences } from "./attention.ts";
export { checkRunnable } from "./runnable.ts";
