/** Stop strings in streamed text: what may be shown, and what must wait because a stop string may begin in it. */

export class StopWatch {
  readonly #stops: readonly string[];
  #held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop.length > 0);
  }

  /** Takes new text; gives what can be shown and whether a stop string has ended the answer (it is never shown). */
  push(text: string): { shown: string; stopped: boolean } {
    const all = this.#held + text;
    const at = Math.min(...this.#stops.map((stop) => indexOr(all, stop)), Infinity);
    if (at < Infinity) {
      this.#held = "";
      return { shown: all.slice(0, at), stopped: true };
    }
    const wait = Math.max(0, ...this.#stops.map((stop) => overlap(all, stop)));
    this.#held = all.slice(all.length - wait);
    return { shown: all.slice(0, all.length - wait), stopped: false };
  }

  /** What still waits when the answer ends otherwise. */
  flush(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }
}

function indexOr(text: string, stop: string): number {
  const at = text.indexOf(stop);
  return at < 0 ? Infinity : at;
}

/** Length of the longest end of `text` that `stop` begins with. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}
