/** The native addon as TypeScript sees it: numbers and bytes go in and out, nothing else. */

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { UnsupportedError } from "../../core/errors.ts";

export interface EngineInfo {
  readonly id: number;
  readonly isa: string;
  readonly threads: number;
}

export interface Addon {
  /** 0 when the memory cannot be had. */
  alloc(bytes: number): number;
  availableBytes(): number;
  /** null when the file ends before the window does. */
  mapFile(path: string, byteOffset: number, byteLength: number): number | null;
  free(handle: number): void;
  write(handle: number, byteOffset: number, data: Uint8Array): void;
  read(handle: number, byteOffset: number, length: number): Uint8Array;
  run(engine: number, words: Float64Array): void;
  openEngine(isa: string | null, threads: number | null): EngineInfo;
  machine(): { readonly cpu: string; readonly cores: number; readonly isas: readonly string[] };
  stats(): {
    readonly liveBytes: number;
    readonly peakBytes: number;
    readonly pooledBytes: number;
    readonly scratchBytes: number;
    readonly liveBuffers: number;
  };
  resetPeak(): void;
  kernelTable(): readonly {
    readonly op: number;
    readonly name: string;
    readonly operands: number;
    readonly numbers: number;
  }[];
  measurePeaks(threads: number): { readonly f32Flops: number; readonly bf16Flops: number };
  measureRoof(threads: number): readonly RoofRow[];
}

/** One measured speed. */
export interface RoofRow {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** Of the measured peak of the same arithmetic, for matrix products. */
  readonly percentOfPeak?: number;
  /** The name of the row of that peak. */
  readonly peak?: string;
}

const FILE = new URL("../../../native/fathom.node", import.meta.url);

let loaded: Addon | undefined;

/** @throws UnsupportedError when the addon has not been built, or was built for another machine. */
export function loadAddon(): Addon {
  if (loaded === undefined) {
    const path = fileURLToPath(FILE);
    try {
      loaded = createRequire(import.meta.url)(path) as Addon;
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message.split("\n")[0] : String(cause);
      const rule = "the native kernels must be built for this machine";
      throw new UnsupportedError("kernels.native", rule, reason, [], "run npm run build");
    }
  }
  return loaded;
}
