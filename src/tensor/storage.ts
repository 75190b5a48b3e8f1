/** One block of backend memory, shared by the views onto it and freed when the last holder lets go. */

import { DisposedError } from "../core/errors.ts";
import type { Backend, Handle } from "../kernels/index.ts";

export class Storage {
  readonly backend: Backend;
  readonly bytes: number;
  readonly label: string;
  /** Rises with every write into finished content; the tape compares it to refuse saved values that changed. */
  version = 0;
  readonly #handle: Handle;
  #holders = 0;
  #freed = false;

  constructor(backend: Backend, bytes: number, label: string, handle?: Handle) {
    this.backend = backend;
    this.bytes = bytes;
    this.label = label;
    this.#handle = handle ?? backend.alloc(bytes);
  }

  /** @throws DisposedError after the last holder has released it. */
  get handle(): Handle {
    if (this.#freed) throw new DisposedError(`tensor ${this.label}`);
    return this.#handle;
  }

  get isShared(): boolean {
    return this.#holders > 1;
  }

  retain(): void {
    if (this.#freed) throw new DisposedError(`tensor ${this.label}`);
    this.#holders++;
  }

  release(): void {
    if (--this.#holders > 0 || this.#freed) return;
    this.#freed = true;
    this.backend.free(this.#handle);
  }
}
