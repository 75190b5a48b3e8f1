/**
 * The reference backend: every kernel of the contract in plain TypeScript, one thread, float64 arithmetic. It is the
 * truth that other backends are compared with, and it runs wherever JavaScript does.
 */

import { invariant, MemoryError } from "../../core/errors.ts";
import type { Backend, Handle, KernelName } from "../contract.ts";
import { decodeCalls, type DecodedCall } from "../encode.ts";
import { attention, attentionBackward, cacheWrite, gqaDecode, mlaDecode } from "./attention.ts";
import { Call } from "./call.ts";
import {
  add,
  axpy,
  copy2d,
  embedding,
  embeddingBackward,
  fill,
  gatherRows,
  randomNormal,
  siluMul,
  siluMulBackward,
  sum,
  sumSquares,
} from "./elementwise.ts";
import { softmaxCrossEntropy } from "./loss.ts";
import { groupedMatmul, groupedMatmulBackwardW, matmul } from "./matmul.ts";
import { balanceLoss, combine, expertCounts, moePlan, route, routeBackward, routerBiasInto } from "./moe.ts";
import { rmsNorm, rmsNormBackward } from "./norm.ts";
import { adamwInto } from "./optim.ts";
import { rope } from "./rope.ts";

const BODIES: { readonly [K in KernelName]: (call: Call<K>) => void } = {
  fill,
  copy2d,
  add,
  axpy,
  sum,
  sumSquares,
  gatherRows,
  randomNormal,
  embedding,
  embeddingBackward,
  rmsNorm,
  rmsNormBackward,
  matmul,
  groupedMatmul,
  groupedMatmulBackwardW,
  siluMul,
  siluMulBackward,
  rope,
  route,
  routeBackward,
  moePlan,
  combine,
  balanceLoss,
  expertCounts,
  routerBiasInto,
  attention,
  attentionBackward,
  cacheWrite,
  mlaDecode,
  gqaDecode,
  softmaxCrossEntropy,
  adamwInto,
};

const WINDOW_BYTES = 64 * 1024 * 1024;

class ReferenceBackend implements Backend {
  readonly name = "reference";
  readonly isa = "typescript";
  readonly threads = 1;
  readonly #buffers = new Map<Handle, ArrayBuffer>();
  #nextHandle = 1;
  #liveBytes = 0;
  #peakBytes = 0;

  /** New bytes are all ones, which reads as NaN or −1: a kernel that uses them unwritten shows it. */
  alloc(byteLength: number): Handle {
    invariant(
      Number.isSafeInteger(byteLength) && byteLength >= 0,
      `a buffer has a whole number of bytes, got ${byteLength}`,
    );
    let buffer;
    try {
      buffer = new ArrayBuffer(byteLength);
    } catch {
      throw new MemoryError("reference backend", byteLength, undefined, "choose a smaller model or batch");
    }
    new Uint8Array(buffer).fill(0xff);
    const handle = this.#nextHandle++;
    this.#buffers.set(handle, buffer);
    this.#liveBytes += byteLength;
    this.#peakBytes = Math.max(this.#peakBytes, this.#liveBytes);
    return handle;
  }

  free(handle: Handle): void {
    this.#liveBytes -= this.#bufferOf(handle).byteLength;
    this.#buffers.delete(handle);
  }

  write(handle: Handle, byteOffset: number, data: Uint8Array): void {
    this.#window(handle, byteOffset, data.byteLength).set(data);
  }

  async read(handle: Handle, byteOffset: number, byteLength: number): Promise<Uint8Array> {
    return this.readSync(handle, byteOffset, byteLength);
  }

  readSync(handle: Handle, byteOffset: number, byteLength: number): Uint8Array {
    return this.#window(handle, byteOffset, byteLength).slice();
  }

  run(words: Float64Array): void {
    for (const call of decodeCalls(words)) this.#runOne(call.name, call);
  }

  stats(): ReturnType<Backend["stats"]> {
    return {
      liveBytes: this.#liveBytes,
      peakBytes: this.#peakBytes,
      pooledBytes: 0,
      scratchBytes: 0,
      liveBuffers: this.#buffers.size,
    };
  }

  resetPeak(): void {
    this.#peakBytes = this.#liveBytes;
  }

  #runOne<K extends KernelName>(name: K, decoded: DecodedCall & { readonly name: K }): void {
    const call = new Call<K>(decoded, (handle) => this.#bufferOf(handle));
    BODIES[name](call);
    call.finish();
  }

  #bufferOf(handle: Handle): ArrayBuffer {
    const buffer = this.#buffers.get(handle);
    invariant(buffer !== undefined, `a handle is live when it is used, got ${handle}`);
    return buffer;
  }

  #window(handle: Handle, byteOffset: number, byteLength: number): Uint8Array {
    const buffer = this.#bufferOf(handle);
    const inside = Number.isSafeInteger(byteOffset) && byteOffset >= 0 && byteLength >= 0;
    invariant(
      inside && byteLength <= WINDOW_BYTES && byteOffset + byteLength <= buffer.byteLength,
      `a copy of at most ${WINDOW_BYTES} bytes lies in its buffer of ${buffer.byteLength} bytes, got ${byteOffset} to ${byteOffset + byteLength}`,
    );
    return new Uint8Array(buffer, byteOffset, byteLength);
  }
}

/** Memory in ArrayBuffers, one thread, float64 arithmetic rounded on store. */
export function createReferenceBackend(): Backend {
  return new ReferenceBackend();
}
