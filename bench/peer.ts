/** A benchmark's other side: a process that works only when it is asked, so that both sides take turns in one run. */

import { spawn, type ChildProcessByStdio } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";

type Line = Readonly<Record<string, unknown>>;

export class Peer implements Disposable {
  readonly name: string;
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  constructor(name: string, command: readonly string[]) {
    this.name = name;
    const env = { ...process.env, HF_HUB_OFFLINE: "1" };
    this.#child = spawn(command[0]!, command.slice(1), { stdio: ["pipe", "pipe", "inherit"], env });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** Resolves with the line that carries `event`. */
  async until(event: string): Promise<Line> {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) throw new Error(`${this.name} ended before ${event}`);
      const line = JSON.parse(value) as Line;
      if (line.event === event) return line;
    }
  }

  /** One turn: `amount` pieces of work. */
  ask(amount: number): Promise<Line> {
    this.#child.stdin.write(`${amount}\n`);
    return this.until("done");
  }

  [Symbol.dispose](): void {
    this.#child.kill();
  }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
