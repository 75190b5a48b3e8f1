/**
 * A benchmark's other side: a process that works only when it is asked, so that both sides take turns in one run; and the
 * table of what each side reached.
 */

import { spawn, type ChildProcessByStdio } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { hfConfigText, type ModelConfig } from "../src/config/index.ts";

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

export interface TorchOptions {
  /** The Python with torch and transformers. */
  readonly python: string;
  /** A script of bench/peers. */
  readonly script: string;
  /** PRECISION:EXPERTS[:compile]. */
  readonly variants: readonly string[];
  readonly model: ModelConfig;
  /** Further arguments of the script. */
  readonly args: readonly (string | number)[];
}

/** One torch process for each variant of the same model, started one after the other and warm. */
export async function startTorchPeers({ python, script, variants, model, args }: TorchOptions): Promise<Peer[]> {
  const config = join(mkdtempSync(join(tmpdir(), "fathom-bench-")), "config.json");
  writeFileSync(config, hfConfigText(model, { bos: 0, eos: 1 }));
  const path = join(import.meta.dirname, "peers", script);
  const peers: Peer[] = [];
  for (const variant of variants) {
    const [dtype, experts, compile] = variant.split(":") as [string, string, string?];
    const command = [python, path, "--config", config, "--dtype", dtype, "--experts", experts, ...args.map(String)];
    const peer = new Peer(`torch ${variant}`, compile === undefined ? command : [...command, "--compile"]);
    await peer.until("ready");
    peers.push(peer);
  }
  return peers;
}

export interface RateRow {
  readonly name: string;
  readonly tokensPerSec: number;
  readonly min: number;
  readonly max: number;
}

/** Tokens per second of each side over the rounds, and the machine's load at the start of each round. */
export class Rates {
  readonly loads: number[] = [];
  readonly #bySide = new Map<string, number[]>();

  startRound(): void {
    this.loads.push(loadavg()[0]!);
  }

  record(side: string, tokensPerSec: number): void {
    this.#bySide.set(side, [...(this.#bySide.get(side) ?? []), tokensPerSec]);
  }

  /** Medians, the side that was recorded first at the top. */
  table(): RateRow[] {
    const row = (name: string, all: readonly number[]): RateRow => ({
      name,
      tokensPerSec: median(all),
      min: Math.min(...all),
      max: Math.max(...all),
    });
    return [...this.#bySide].map(([name, all]) => row(name, all));
  }

  /** The best median among the sides whose name begins so. */
  best(prefix: string): number {
    const sides = this.table().filter(({ name }) => name.startsWith(prefix));
    return Math.max(...sides.map(({ tokensPerSec }) => tokensPerSec));
  }

  /** The table, then a verdict with the loads. @param digits after the decimal point. */
  print(verdict: string, digits: number): void {
    for (const { name, tokensPerSec, min, max } of this.table()) {
      const range = `(${min.toFixed(digits)}–${max.toFixed(digits)})`;
      console.log(`${name.padEnd(28)} ${tokensPerSec.toFixed(digits).padStart(8)} tokens/s ${range}`);
    }
    console.log(`${verdict}; load ${this.loads.map((load) => load.toFixed(1)).join(" ")}`);
  }
}
