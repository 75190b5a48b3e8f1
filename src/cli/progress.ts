/** Lines that say how far a long job is. */

import type { ReportProgress } from "../data/index.ts";
import type { StepReport } from "../train/index.ts";
import { bytes, duration, short, type ProgressLine } from "./output.ts";

export function dataProgress(line: ProgressLine): ReportProgress {
  return ({ phase, subject, doneBytes, totalBytes }) => {
    const share = totalBytes > 0 ? ` of ${bytes(totalBytes)}` : "";
    line.update(`${phase} ${subject}: ${bytes(doneBytes)}${share}`);
  };
}

export interface StepLineOptions {
  readonly steps: number;
  /** Floating point operations per second that the machine was measured to reach. */
  readonly peakFlops: number;
}

/** Step, loss, bits per byte, tokens/s, MFU and time to go, smoothed over about twenty steps. */
export class StepLine {
  readonly #options: StepLineOptions;
  #msPerStep = 0;
  #loss = 0;
  #seen = 0;

  constructor(options: StepLineOptions) {
    this.#options = options;
  }

  next(report: StepReport): string {
    const { steps, peakFlops } = this.#options;
    this.#seen++;
    const weight = Math.max(1 / this.#seen, 0.05);
    this.#msPerStep += weight * (report.ms - this.#msPerStep);
    this.#loss += weight * (report.loss - this.#loss);
    const bitsPerByte = (this.#loss * report.targets) / Math.LN2 / report.bytes;
    const perSec = (report.tokens / this.#msPerStep) * 1000;
    const mfu = ((report.flops / this.#msPerStep) * 1000) / peakFlops;
    const eta = duration(((steps - report.step) * this.#msPerStep) / 1000);
    return [
      `step ${report.step}/${steps}`,
      `loss ${this.#loss.toFixed(3)}`,
      `${bitsPerByte.toFixed(3)} bits/byte`,
      `${short(perSec)} tokens/s`,
      `MFU ${(100 * mfu).toFixed(1)} %`,
      `ETA ${eta}`,
    ].join("  ");
  }
}
