/** Planning: what a model costs in memory, work, communication and time on given devices, and which layout is best. */

export { devicesPerNode, parseGpus, type Cluster } from "./cluster.ts";
export { confidenceOf, type Confidence, type Device, type LinkDomain, type PeakFormat } from "./hardware.ts";
export {
  brokenIdentity,
  checkLayout,
  completeLayout,
  expertDataParallel,
  fullRecomputeShare,
  IDENTITIES,
  layoutText,
  numMicroBatches,
  SCHEDULES,
  worldSize,
  type Layout,
  type LayoutInput,
  type LayoutModel,
  type Recompute,
  type Schedule,
  type ZeroStage,
} from "./layout.ts";
export { fitTraining, largestFit, type FitRow } from "./fit.ts";
export type { Quantity } from "./formula.ts";
export { ledgerParts, memoryLedger, type LedgerLine } from "./ledger.ts";
export { frozenWeightBytes, precisionRecipe, type PrecisionRecipe } from "./precision.ts";
export { findLabelled } from "./row-names.ts";
export { bubbleFraction, microBatchesInFlight } from "./schedules.ts";
export {
  SEARCH_GRID,
  searchLayouts,
  type SearchCounts,
  type SearchGrid,
  type SearchResult,
  type SearchSettings,
} from "./search.ts";
export { summarise, type TrainingSummary } from "./summary.ts";
export { evaluatorOfConfig } from "./configured-evaluator.ts";
export { configuredLayout } from "./configured-layout.ts";
export { parameterInfluence, type Costs, type Influence, type Trial } from "./influence.ts";
export { modelShape, withAdapters, withoutMtp, type ModelShape } from "./shape.ts";
export { device, DEVICES } from "./devices.ts";
export { parseDeviceRows, toDevice, type DeviceRow } from "./device-rows.ts";
export { batchCurve, batchPoint, largestBatch, parseSlo, type BatchPoint, type CurveSettings } from "./batch-curve.ts";
export { BILL_NAMES, costOf, energyOf, explainBill } from "./cost.ts";
export { BOUND, planInference, type InferencePlan } from "./inference.ts";
export { KV_FORMATS, type KvFormat } from "./kv-cache.ts";
export { explainLocal, LOCAL_NAMES, planLocal, planLocalMixes, type LocalPlan } from "./local-run.ts";
export { CALIBRATED_ENGINES, efficiencyFor } from "./efficiency.ts";
export { engineEvaluator } from "./engine-evaluator.ts";
export {
  createTrainingEvaluator,
  MEMORY_PARTS,
  type Evaluation,
  type MemoryParts,
  type TrainingEvaluator,
  type TrainingJob,
} from "./training.ts";
export { decodeFlopsPerToken, explainWork, flopsPerToken, type Work, type WorkSettings } from "./work.ts";
export type { PinnedLayout } from "./export/choose-layout.ts";
export { ENGINE_TASKS, findEngine, type EngineName } from "./export/engine-names.ts";
export type { ExportRequest } from "./export/export-plan.ts";
export { exportFastest, exportPlan } from "./export/launch-files.ts";
export { CLUSTERS, type ClusterName, type LaunchFile } from "./export/launch.ts";
export { ggufMix, type GgufMix } from "./gguf-mix.ts";
export { ASSUMED, listAssumptions } from "./assumptions.ts";
