/**
 * A backend without memory or arithmetic: it only keeps account. What runs on it allocates and frees as it would on a
 * real one, so the peak of a training step is known for any model without the machine for it. Reads give zeros.
 */

import { invariant } from "../core/errors.ts";
import type { Backend, Handle } from "./contract.ts";

export function createPlanningBackend(): Backend {
  const live = new Map<Handle, number>();
  let next = 1;
  let liveBytes = 0;
  let peakBytes = 0;
  const zeros = (length: number): Uint8Array => new Uint8Array(length);
  return {
    name: "planning",
    isa: "none",
    threads: 1,
    alloc: (byteLength) => {
      live.set(next, byteLength);
      liveBytes += byteLength;
      peakBytes = Math.max(peakBytes, liveBytes);
      return next++;
    },
    free: (handle) => {
      const bytes = live.get(handle);
      invariant(bytes !== undefined, `handle ${handle} is live`);
      live.delete(handle);
      liveBytes -= bytes;
    },
    write: () => undefined,
    read: (_handle, _byteOffset, byteLength) => Promise.resolve(zeros(byteLength)),
    readSync: (_handle, _byteOffset, byteLength) => zeros(byteLength),
    run: () => undefined,
    stats: () => ({ liveBytes, peakBytes, pooledBytes: 0, scratchBytes: 0, liveBuffers: live.size }),
    resetPeak: () => {
      peakBytes = liveBytes;
    },
  };
}
