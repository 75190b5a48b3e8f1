/** Training: the trainer and the course of a run. */

export { trainLoop, type TrainEvent } from "./loop.ts";
export { trainingLedger, type Ledger } from "./ledger.ts";
export { Trainer, type EvalReport, type StepReport, type TrainerOptions, type TrainerState } from "./trainer.ts";
export type { RoutingStats } from "./routing-stats.ts";
