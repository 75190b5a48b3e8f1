/** Giving way to timers, signals and sockets in the middle of long work. */

const host = globalThis as { readonly setImmediate?: (work: () => void) => void };

/** Resolves in the next turn of the event loop: at once with setImmediate (Node), else after a timer. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    if (host.setImmediate === undefined) setTimeout(resolve, 0);
    else host.setImmediate(resolve);
  });
}
