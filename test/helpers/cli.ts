/** The command line as a user runs it: the built program in a folder of its own, with a cache of its own. */

import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Rng } from "../../src/core/rng.ts";

export const root = fileURLToPath(new URL("../../", import.meta.url));
export const mainScript = join(root, "dist", "cli", "main.js");

export interface Ended {
  /** The exit code, or the signal that ended the program. */
  readonly code: number | NodeJS.Signals;
  readonly stdout: string;
  readonly stderr: string;
}

/** What `--json` prints for a step, an evaluation, a checkpoint or a sample. */
export interface TrainEvent {
  readonly step?: number;
  readonly loss?: number;
  readonly tokens?: number;
  readonly tokens_per_sec?: number;
  readonly val_loss?: number;
  readonly bits_per_byte?: number;
  readonly routing?: readonly { readonly counts: readonly number[]; readonly max_load: number }[];
  readonly checkpoint?: string;
  /** What the quickstart's model wrote. */
  readonly sample?: string;
}

/** What `--json` has printed: every whole line is an object. */
export function eventsOf(stdout: string): TrainEvent[] {
  const lines = stdout.split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line) as TrainEvent);
}

/** A program that runs, its output so far, and its end. */
export class Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  #stdout = "";
  #stderr = "";
  #heard: () => void = () => undefined;

  constructor(child: ChildProcess) {
    this.child = child;
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.#stdout += text;
      this.#heard();
    });
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
      this.#heard();
    });
    this.ended = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => {
        resolve({ code: signal ?? code!, stdout: this.#stdout, stderr: this.#stderr });
        this.#heard();
      });
    });
  }

  get stdout(): string {
    return this.#stdout;
  }

  get isOver(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Resolves when the output so far fulfils the condition, or the program has ended. */
  async until(condition: (stdout: string) => boolean): Promise<void> {
    while (!condition(this.#stdout) && !this.isOver) {
      await new Promise<void>((resolve) => {
        this.#heard = resolve;
      });
    }
  }
}

interface Surroundings {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
}

/** A folder with a cache; everything in it is gone when it is disposed. */
export class Workspace implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "fathom-story-"));
  readonly cache = join(this.folder, "cache");

  path(...names: string[]): string {
    return join(this.folder, ...names);
  }

  write(name: string, content: string | Uint8Array): void {
    mkdirSync(dirname(this.path(name)), { recursive: true });
    writeFileSync(this.path(name), content);
  }

  /** Starts any program, in this folder if no other is named. */
  spawn(program: string, args: readonly string[], { env = {}, cwd = this.folder }: Surroundings = {}): Running {
    const child = spawn(program, args, {
      cwd,
      env: { ...process.env, FATHOM_CACHE: this.cache, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    return new Running(child);
  }

  /** Starts `fathom` with these arguments. */
  start(...args: string[]): Running {
    return this.spawn(process.execPath, [mainScript, ...args]);
  }

  run(...args: string[]): Promise<Ended> {
    return this.start(...args).ended;
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const SYLLABLES = "ba con de er fi gra he in jo ka lu men no or pre qui ra st ti un ver wa ing ed ous ly".split(" ");

/** Sentences of invented words, the same for the same seed; about `bytes` long. */
function inventedText(bytes: number, seed: number): string {
  const rng = new Rng(seed, "invented text");
  const below = (n: number): number => Math.floor(rng.uniform() * n);
  const words = Array.from({ length: 400 }, () =>
    Array.from({ length: 1 + below(3) }, () => SYLLABLES[below(SYLLABLES.length)]!).join(""),
  );
  const sentences: string[] = [];
  for (let length = 0; length < bytes;) {
    const chosen = Array.from({ length: 4 + below(12) }, () => words[Math.floor(words.length * rng.uniform() ** 3)]!);
    const sentence = `${chosen[0]!.toUpperCase()} ${chosen.slice(1).join(" ")}.\n`;
    length += sentence.length;
    sentences.push(sentence);
  }
  return sentences.join("");
}

/** About 200 KB of text in `texts/`: two plain files and one of JSON lines. */
export function writeTexts(workspace: Workspace): void {
  workspace.write("texts/first.txt", inventedText(80_000, 1));
  workspace.write("texts/deeper/second.txt", inventedText(40_000, 2));
  const documents = Array.from({ length: 40 }, (_, i) => JSON.stringify({ text: inventedText(2000, 3 + i) }));
  workspace.write("texts/third.jsonl", `${documents.join("\n")}\n`);
}
