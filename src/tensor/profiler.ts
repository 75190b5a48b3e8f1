/** Adds up what the operations' rows say they cost, and where the time goes. */

export class Profiler {
  #flops = 0;
  readonly #byOp = new Map<string, { calls: number; flops: number; ms: number }>();
  readonly #now: () => number;

  /** @param now clock in milliseconds. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Times `work` under the name of an operation. */
  measure<T>(op: string, flops: number, work: () => T): T {
    const start = this.#now();
    const result = work();
    const row = this.#byOp.get(op) ?? { calls: 0, flops: 0, ms: 0 };
    row.calls++;
    row.flops += flops;
    row.ms += this.#now() - start;
    this.#byOp.set(op, row);
    this.#flops += flops;
    return result;
  }

  get flops(): number {
    return this.#flops;
  }

  rows(): { op: string; calls: number; flops: number; ms: number }[] {
    return [...this.#byOp].map(([op, row]) => ({ op, ...row })).toSorted((a, b) => b.ms - a.ms);
  }

  reset(): void {
    this.#flops = 0;
    this.#byOp.clear();
  }
}
