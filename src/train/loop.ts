/** The course of a run: steps, evaluations and checkpoints in order, until the last step or a signal to stop. */

import { nextTurn } from "../core/turn.ts";
import type { EvalReport, StepReport, Trainer } from "./trainer.ts";

export type TrainEvent =
  | { readonly kind: "step"; readonly report: StepReport }
  | { readonly kind: "evaluation"; readonly report: EvalReport }
  | { readonly kind: "checkpoint"; readonly path: string; readonly step: number };

export interface LoopOptions {
  readonly trainer: Trainer;
  /** The step after which the run ends. */
  readonly steps: number;
  /** Writes a checkpoint of the present state and returns its path. */
  readonly save: (step: number) => Promise<string>;
  /** Ends the run cleanly after the step, or at once in an evaluation, with a checkpoint. */
  readonly signal?: AbortSignal;
}

/**
 * Trains on from where the trainer stands. Evaluates every evalEvery steps and at the end, saves every checkpointEvery
 * steps and at the end. Yields a macrotask after every step, so that signals are heard.
 */
export async function* trainLoop(options: LoopOptions): AsyncGenerator<TrainEvent> {
  const { trainer, steps, save, signal } = options;
  const { evalEvery, checkpointEvery } = trainer.config.training;
  let saved = trainer.state.step;
  while (trainer.state.step < steps && signal?.aborted !== true) {
    const report = await trainer.step();
    yield { kind: "step", report };
    const { step } = report;
    if (step % evalEvery === 0 || step === steps) {
      const evaluation = await evaluate(options);
      if (evaluation === undefined) break;
      yield { kind: "evaluation", report: evaluation };
    }
    if (step % checkpointEvery === 0 && step < steps) {
      yield { kind: "checkpoint", path: await save(step), step };
      saved = step;
    }
    await nextTurn();
  }
  const { step } = trainer.state;
  if (step > saved) yield { kind: "checkpoint", path: await save(step), step };
}

/** Undefined when the signal ended it. */
async function evaluate({ trainer, signal }: LoopOptions): Promise<EvalReport | undefined> {
  try {
    return await trainer.evaluate(signal);
  } catch (error) {
    if (signal?.aborted === true && error === signal.reason) return undefined;
    throw error;
  }
}
