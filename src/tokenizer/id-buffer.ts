/** Ids that are collected one piece after the other, in memory that serves the next text again. */

/** Ids for which memory is kept, 4 MB: those of most texts. */
const MAX_KEPT_IDS = 1 << 20;

export class IdBuffer {
  #ids = new Int32Array(1 << 10);
  #count = 0;

  push(id: number): void {
    if (this.#count === this.#ids.length) this.#grow(1);
    this.#ids[this.#count++] = id;
  }

  append(ids: ArrayLike<number>): void {
    if (this.#count + ids.length > this.#ids.length) this.#grow(ids.length);
    // Most pieces have one id or two.
    if (ids.length > 16) this.#ids.set(ids, this.#count);
    else for (let i = 0; i < ids.length; i++) this.#ids[this.#count + i] = ids[i]!;
    this.#count += ids.length;
  }

  /** Forgets what was collected, and gives memory back that only a long text needs. */
  clear(): void {
    this.#count = 0;
    if (this.#ids.length > MAX_KEPT_IDS) this.#ids = new Int32Array(MAX_KEPT_IDS);
  }

  /** A copy of what was collected. The buffer is then empty. */
  take(): Int32Array {
    const taken = this.#ids.slice(0, this.#count);
    this.clear();
    return taken;
  }

  #grow(by: number): void {
    const grown = new Int32Array(Math.max(2 * this.#ids.length, this.#count + by));
    grown.set(this.#ids);
    this.#ids = grown;
  }
}
