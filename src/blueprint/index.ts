/** The blueprint of a model and what is read from it: counts, storage, checkpoint names and the basic formulas. */

export { compareWithArticle, type ComparedClaim } from "./article.ts";
export { blueprint, layerSamples, outline, type Blueprint, type Counted, type Outline } from "./blueprint.ts";
export {
  checkpointCopies,
  checkpointNames,
  releasedTensors,
  type CheckpointTensor,
  type ReleasedTensor,
} from "./checkpoint-names.ts";
export { countModule, countParameters, type ModuleCount, type ParameterCounts } from "./counts.ts";
export { fusedExperts, type FusedTensor } from "./fused-experts.ts";
export * as formulas from "./formulas.ts";
export { countLayer, layerHelp, type LayerCount } from "./layer-spec.ts";
export {
  countElements,
  parametersOf,
  type Init,
  type Module,
  type ParameterSpec,
  type ParameterGroup,
  type ShardAxes,
  type Storage,
} from "./parameter.ts";
export { reportParameters, type ModuleReport, type ParameterReport, type ReportDepth } from "./report.ts";
export { countHeaders, type HeaderTensor } from "./header-counts.ts";
export { countStorage, storedParts, type StorageCounts, type StoredDType, type StoredPart } from "./storage.ts";
export { ggufNames, isOptionalInGguf, type GgufLayout, type GgufTensorName } from "./gguf-names.ts";
export { checkTensors, type ExpectedTensor, type ShapeMismatch, type TensorCheck } from "./tensor-check.ts";
export { countAdapters, countLowRank, findMatrices, type AddedCount } from "./tuned-parts.ts";
