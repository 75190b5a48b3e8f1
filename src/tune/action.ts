/** One thing to try: which settings change, and what kind of change that is. */

import type { ResolvedConfig, Value } from "../config/index.ts";
import type { RunMetrics } from "./metrics.ts";
import type { Prediction } from "./prediction.ts";

export const SYMPTOMS = ["oom", "slow", "quality", "repetition"] as const;
export type Symptom = (typeof SYMPTOMS)[number];

/** What a change does beside memory and time, mildest first. */
export const KINDS = ["same numbers", "other rounding", "other answers", "other training", "new model"] as const;
export type Kind = (typeof KINDS)[number];

/** Settings by path, `training.micro_batch_size`. */
export type Changes = Readonly<Record<string, Value>>;

export interface Situation {
  readonly config: ResolvedConfig;
  readonly now: Prediction;
  readonly metrics?: RunMetrics;
  /** Text that the model wrote. */
  readonly sample?: string;
}

export interface Action {
  readonly name: string;
  readonly kind: Kind;
  /** Why it helps, and what it costs beside memory and time. */
  readonly why: string;
  readonly source: string;
  /** What would change; undefined where there is nothing left to change, no settings where it is done by hand. */
  readonly change: (situation: Situation) => Changes | undefined;
}

/** A question about the situation, with what follows from each answer, or actions to weigh. */
export type Node =
  | {
      readonly ask: string | ((situation: Situation) => string);
      /** undefined where what is asked for was not measured: the question is passed over. */
      readonly holds: (situation: Situation) => boolean | undefined;
      readonly yes: readonly Node[];
      readonly no?: readonly Node[];
      readonly unmeasured?: readonly Node[];
    }
  | Action;
