/** The measured roof of this machine, for MFU. */

import type { NativeBackend } from "../kernels/node.ts";

/** Floating point operations per second that bf16 products reach here at best, or f32 ones where those are faster. */
export function peakFlops(backend: NativeBackend): number {
  const { bf16Gflops, f32Gflops } = backend.peaks();
  return Math.max(bf16Gflops, f32Gflops) * 1e9;
}
