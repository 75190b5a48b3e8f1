/**
 * The folder in which a conversion grows, `TARGET.partial`: its files appear under their names when they are whole, and
 * `conversion.json` lists them with their SHA-256, so that a second start goes on after the last one. At the end they
 * are moved to their place.
 */

import { createHash, type Hash } from "node:crypto";
import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ConfigError, FormatError } from "../core/errors.ts";
import { readText, writeWhole, type FilePort } from "../formats/index.ts";
import type { OutputFile } from "./plan.ts";

interface WrittenFile {
  readonly bytes: number;
  readonly sha256: string;
}

interface State {
  /** What is converted, from what, and how. */
  readonly key: string;
  readonly files: Record<string, WrittenFile>;
}

const STATE = "conversion.json";

export class Staging {
  readonly folder: string;
  readonly #port: FilePort;
  readonly #target: string;
  readonly #state: State;

  private constructor(port: FilePort, target: string, state: State) {
    this.#port = port;
    this.#target = target;
    this.folder = stagingFolder(target);
    this.#state = state;
  }

  /**
   * Goes on with an unfinished conversion to `target`, or begins one.
   * @throws ConfigError when the unfinished one is another. @throws IoError when the folder cannot be made.
   */
  static async open(port: FilePort, target: string, key: string): Promise<Staging> {
    const state = (await readState(port, target)) ?? { key, files: {} };
    if (state.key !== key) {
      const cure = `remove ${stagingFolder(target)}, or convert as before to finish it`;
      throw new ConfigError("target", "must have no other unfinished conversion beside it", target, cure);
    }
    await port.makeFolder(stagingFolder(target));
    return new Staging(port, target, state);
  }

  /** SHA-256 of every file so far, by name. */
  get digests(): ReadonlyMap<string, string> {
    return new Map(Object.entries(this.#state.files).map(([name, { sha256 }]) => [name, sha256]));
  }

  /** The target in this folder, until `finish` moves it. */
  get written(): string {
    return this.#target.endsWith(".gguf") ? join(this.folder, basename(this.#target)) : this.folder;
  }

  /** Whether a file of this name is there, whole. */
  async has(name: string): Promise<boolean> {
    const due = this.#state.files[name]?.bytes;
    if (due === undefined) return false;
    const found = await stat(join(this.folder, name)).catch(() => undefined);
    return found?.size === due;
  }

  async write(file: OutputFile, onBytes: (bytes: number) => void): Promise<void> {
    const { port, written } = countingPort(this.#port, onBytes);
    await file.write(port, join(this.folder, file.name));
    this.#state.files[file.name] = written();
    await this.#save();
  }

  /** Moves the files to their place: the folder itself, or what is in it beside a `.gguf` target. */
  async finish(): Promise<void> {
    const state = join(this.folder, STATE);
    if (!this.#target.endsWith(".gguf")) {
      await this.#port.remove(state);
      await this.#port.rename(this.folder, this.#target);
    } else {
      // The first part last: with it the model is whole.
      const names = Object.keys(this.#state.files).toReversed();
      for (const name of names) await this.#port.rename(join(this.folder, name), join(dirname(this.#target), name));
      await this.#port.remove(this.folder);
    }
    await this.#port.syncFolder(dirname(this.#target));
  }

  async #save(): Promise<void> {
    const text = new TextEncoder().encode(JSON.stringify(this.#state, null, 2));
    await writeWhole(this.#port, join(this.folder, STATE), [text]);
  }
}

function stagingFolder(target: string): string {
  return join(dirname(target), `${basename(target)}.partial`);
}

/** Bytes that an unfinished conversion of the same kind has on the disk already. */
export async function stagedBytes(port: FilePort, target: string, key: string): Promise<number> {
  const state = await readState(port, target);
  if (state?.key !== key) return 0;
  return Object.values(state.files).reduce((sum, { bytes }) => sum + bytes, 0);
}

async function readState(port: FilePort, target: string): Promise<State | undefined> {
  const path = join(stagingFolder(target), STATE);
  if (!(await port.isFile(path))) return undefined;
  try {
    return JSON.parse(await readText(port, path)) as State;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new FormatError(path, "must be JSON", { got: error.message, cure: "remove the folder" });
  }
}

/** A port that counts and hashes what one file is written with. */
function countingPort(
  port: FilePort,
  onBytes: (bytes: number) => void,
): { port: FilePort; written: () => WrittenFile } {
  let hash: Hash = createHash("sha256");
  let bytes = 0;
  const openWrite: FilePort["openWrite"] = async (path) => {
    const file = await port.openWrite(path);
    [hash, bytes] = [createHash("sha256"), 0];
    return {
      write: async (chunk) => {
        await file.write(chunk);
        hash.update(chunk);
        bytes += chunk.length;
        onBytes(chunk.length);
      },
      sync: () => file.sync(),
      close: () => file.close(),
    };
  };
  return { port: { ...port, openWrite }, written: () => ({ bytes, sha256: hash.digest("hex") }) };
}
