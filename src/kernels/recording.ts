/**
 * Calls written down once, to be run again and again in one crossing. What changes from run to run stands in buffers that
 * were there before: they are rewritten between two runs, while the words stay the same.
 */

import { DisposedError, invariant } from "../core/errors.ts";
import type { Backend, Handle, MemoryStats } from "./contract.ts";

/** A list of calls and the memory that they work in. */
export interface Recording extends Disposable {
  /**
   * Runs the list.
   *
   * @throws DisposedError when the recording is gone, InternalError when a buffer that a call names is.
   */
  replay(): void;
}

/**
 * Writes down what `work` runs on the backend that it is given. Nothing is run, so nothing can be read or written in
 * `work`. Memory that it takes belongs to the recording and is reused within the list once `work` has freed it; what it
 * has not freed can be written before each replay and read after it, through the same backend.
 */
export function record<T>(
  backend: Backend,
  work: (recorder: Backend) => T,
): { readonly recording: Recording; readonly result: T } {
  const recorder = new Recorder(backend);
  try {
    const result = work(recorder);
    return { recording: recorder.finish(), result };
  } catch (error) {
    recorder.release();
    throw error;
  }
}

class Recorder implements Backend {
  readonly name: Backend["name"];
  readonly isa: string;
  readonly threads: number;
  readonly #backend: Backend;
  readonly #lists: Float64Array[] = [];
  /** Bytes of every buffer taken. */
  readonly #held = new Map<Handle, number>();
  /** Freed buffers by size. */
  readonly #spare = new Map<number, Handle[]>();
  #isOpen = true;

  constructor(backend: Backend) {
    this.#backend = backend;
    this.name = backend.name;
    this.isa = backend.isa;
    this.threads = backend.threads;
  }

  alloc(byteLength: number): Handle {
    this.#check("memory is taken", true);
    const handle = this.#spare.get(byteLength)?.pop() ?? this.#backend.alloc(byteLength);
    this.#held.set(handle, byteLength);
    return handle;
  }

  free(handle: Handle): void {
    const bytes = this.#held.get(handle);
    if (bytes === undefined) return;
    const spare = this.#spare.get(bytes);
    if (spare === undefined) this.#spare.set(bytes, [handle]);
    else spare.push(handle);
  }

  write(handle: Handle, byteOffset: number, data: Uint8Array): void {
    this.#check("memory is written", false);
    this.#backend.write(handle, byteOffset, data);
  }

  async read(handle: Handle, byteOffset: number, byteLength: number): Promise<Uint8Array> {
    return this.readSync(handle, byteOffset, byteLength);
  }

  readSync(handle: Handle, byteOffset: number, byteLength: number): Uint8Array {
    this.#check("memory is read", false);
    return this.#backend.readSync(handle, byteOffset, byteLength);
  }

  run(words: Float64Array): void {
    this.#check("calls are written down", true);
    this.#lists.push(words);
  }

  stats(): MemoryStats {
    return this.#backend.stats();
  }

  resetPeak(): void {
    this.#backend.resetPeak();
  }

  finish(): Recording {
    this.#isOpen = false;
    let words: Float64Array | null = joined(this.#lists);
    return {
      replay: () => {
        if (words === null) throw new DisposedError("recording");
        this.#backend.run(words);
      },
      [Symbol.dispose]: () => {
        words = null;
        this.release();
      },
    };
  }

  release(): void {
    for (const handle of this.#held.keys()) this.#backend.free(handle);
    this.#held.clear();
  }

  #check(what: string, whileOpen: boolean): void {
    invariant(this.#isOpen === whileOpen, `${what} only ${whileOpen ? "while" : "after"} a list is recorded`);
  }
}

function joined(lists: readonly Float64Array[]): Float64Array {
  const words = new Float64Array(lists.reduce((sum, list) => sum + list.length, 0));
  let at = 0;
  for (const list of lists) {
    words.set(list, at);
    at += list.length;
  }
  return words;
}
