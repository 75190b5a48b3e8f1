/** The native backend: Rust kernels behind handles. All backends of a process share one table of buffers. */

import { ConfigError, FormatError, InternalError, IoError, MemoryError, UnsupportedError } from "../../core/errors.ts";
import type { Backend, Handle } from "../contract.ts";
import { loadAddon, type EngineInfo, type RoofRow } from "./addon.ts";

export interface NativeOptions {
  /** An instruction set of this machine; default: the best. */
  readonly isa?: string;
  /** Default: one for each core. */
  readonly threads?: number;
}

export interface NativeBackend extends Backend, Disposable {
  mapFile(path: string, byteOffset: number, byteLength: number): Handle;
  /** What the threads of this backend reach at best, measured once. bf16: on the fastest unit; 0 without one. */
  peaks(): { readonly f32Gflops: number; readonly bf16Gflops: number };
}

/** Bytes that new buffers can take: what the system can free now, and no more than a control group allows. */
export function availableBytes(): number {
  return loadAddon().availableBytes();
}

/** The instruction sets that run on this machine, the best last. */
export function nativeIsas(): readonly string[] {
  return loadAddon().machine().isas;
}

/** Bandwidth, arithmetic peaks and matrix products of this machine, measured. Takes some seconds. */
export function measureRoof(threads?: number): readonly RoofRow[] {
  const addon = loadAddon();
  return addon.measureRoof(threads ?? addon.machine().cores);
}

/**
 * @throws UnsupportedError when the addon is not built or the machine lacks the instruction set.
 * @throws ConfigError when `threads` is not an integer from 1 to 1024.
 */
export function createNativeBackend({ isa, threads }: NativeOptions = {}): NativeBackend {
  const addon = loadAddon();
  const engine = openEngine(isa, threads);
  let peaks: { f32Gflops: number; bf16Gflops: number } | undefined;
  const readSync = (handle: Handle, byteOffset: number, byteLength: number): Uint8Array =>
    internal(() => addon.read(handle, byteOffset, byteLength));
  return {
    name: "native",
    isa: engine.isa,
    threads: engine.threads,
    alloc: (byteLength) => {
      const handle = internal(() => addon.alloc(byteLength));
      if (handle === 0) throw outOfMemory(byteLength, addon.availableBytes());
      return handle;
    },
    free: (handle) => internal(() => addon.free(handle)),
    write: (handle, byteOffset, data) => internal(() => addon.write(handle, byteOffset, data)),
    read: async (handle, byteOffset, byteLength) => readSync(handle, byteOffset, byteLength),
    readSync,
    run: (words) => internal(() => addon.run(engine.id, words)),
    stats: () => addon.stats(),
    resetPeak: () => addon.resetPeak(),
    mapFile,
    peaks: () => {
      if (peaks === undefined) {
        const { f32Flops, bf16Flops } = addon.measurePeaks(engine.threads);
        peaks = { f32Gflops: f32Flops / 1e9, bf16Gflops: bf16Flops / 1e9 };
      }
      return peaks;
    },
    // Engines and pooled memory belong to the process; buffers belong to the arenas.
    [Symbol.dispose]: () => undefined,
  };
}

const MOST_THREADS = 1024;

function openEngine(isa: string | undefined, threads: number | undefined): EngineInfo {
  const addon = loadAddon();
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= MOST_THREADS)) {
    throw new ConfigError("threads", `must be an integer from 1 to ${MOST_THREADS}`, threads);
  }
  const { isas } = addon.machine();
  if (isa !== undefined && !isas.includes(isa)) {
    throw new UnsupportedError("kernels.native", "isa must be one that this machine has", isa, isas);
  }
  return internal(() => addon.openEngine(isa ?? null, threads ?? null));
}

function outOfMemory(bytes: number, available: number): MemoryError {
  return new MemoryError("kernels.native", bytes, available, "use a smaller model, batch or sequence");
}

/** What the addon refuses at these calls is a bug of ours. */
function internal<T>(call: () => T): T {
  try {
    return call();
  } catch (cause) {
    throw new InternalError(messageOf(cause), { cause });
  }
}

function mapFile(path: string, byteOffset: number, byteLength: number): Handle {
  const handle = mapping(path, () => loadAddon().mapFile(path, byteOffset, byteLength));
  if (handle !== null) return handle;
  const cure = "copy the file again, and leave it as it is while it is read";
  throw new FormatError(path, `must hold ${byteLength} bytes from there on`, { offset: byteOffset, cure });
}

function mapping<T>(path: string, map: () => T): T {
  try {
    return map();
  } catch (cause) {
    throw new IoError(path, `must be readable and mapped into memory (${messageOf(cause)})`, { cause });
  }
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
