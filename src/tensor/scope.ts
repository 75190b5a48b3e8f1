/**
 * What every operation is handed: the backend, the tape (or none), the precision, the profiler, and the list of tensors
 * to free when the scope is left. `using s = scope.child()` frees on leave; `s.keep(x)` hands a tensor up.
 */

import type { DType } from "../core/dtype.ts";
import { bytesOf } from "../core/dtype.ts";
import { invariant } from "../core/errors.ts";
import {
  KERNELS,
  encodeCall,
  type Backend,
  type KernelName,
  type KernelNumbers,
  type KernelOperands,
} from "../kernels/index.ts";
import type { Profiler } from "./profiler.ts";
import { Storage } from "./storage.ts";
import type { Tape } from "./tape.ts";
import { Tensor, sizeOf, type Shape } from "./tensor.ts";

/** The operands of each kernel that are state and change in place. */
const STATE_OPERANDS = Object.fromEntries(
  Object.entries(KERNELS).map(([name, { operands }]) => [
    name,
    Object.entries(operands)
      .filter(([, role]) => role.startsWith("io"))
      .map(([key]) => key),
  ]),
) as unknown as Record<KernelName, readonly string[]>;

/**
 * How matrix products multiply: f32, or factors rounded to bf16 with f32 accumulation; fp8 is bf16 but for weights stored
 * in e4m3, whose other factor is rounded to e4m3 too. See the kernel contract.
 */
export type Compute = "f32" | "bf16" | "fp8";

export interface ScopeOptions {
  readonly tape?: Tape | null;
  readonly compute?: Compute;
  /** The type of new activations; f64 only on the reference backend. */
  readonly dtype?: DType;
  readonly profiler?: Profiler | null;
}

export class Scope implements Disposable {
  readonly backend: Backend;
  readonly tape: Tape | null;
  readonly compute: Compute;
  readonly dtype: DType;
  readonly profiler: Profiler | null;
  readonly #parent: Scope | null;
  readonly #owned = new Map<Tensor, Storage>();

  private constructor(backend: Backend, options: Required<ScopeOptions>, parent: Scope | null) {
    this.backend = backend;
    this.tape = options.tape;
    this.compute = options.compute;
    this.dtype = options.dtype;
    this.profiler = options.profiler;
    this.#parent = parent;
  }

  static root(backend: Backend, options: ScopeOptions = {}): Scope {
    const { tape = null, compute = "f32", dtype = "f32", profiler = null } = options;
    return new Scope(backend, { tape, compute, dtype, profiler }, null);
  }

  child(): Scope {
    return new Scope(this.backend, this, this);
  }

  /** A scope on the same backend with other options, freeing into this one. */
  with(options: ScopeOptions): Scope {
    return new Scope(this.backend, { ...this.options, ...options }, this);
  }

  private get options(): Required<ScopeOptions> {
    return { tape: this.tape, compute: this.compute, dtype: this.dtype, profiler: this.profiler };
  }

  /** A fresh tensor with undefined content, owned by this scope. */
  empty(shape: Shape, dtype: DType = this.dtype, label = "value"): Tensor {
    const storage = new Storage(this.backend, Math.max(bytesOf(dtype, sizeOf(shape)), 4), label);
    return this.own(new Tensor(storage, shape, dtype));
  }

  /** A tensor with the given values. Numbers become this scope's dtype. */
  from(values: readonly number[] | Float32Array | Int32Array | Float64Array, shape: Shape, dtype = this.dtype): Tensor {
    const tensor = this.empty(shape, dtype);
    invariant(values.length === tensor.size, `${tensor.size} values fill shape [${shape.join(", ")}]`);
    if (dtype === "i32") tensor.write(Int32Array.from(values));
    else if (dtype === "f64") tensor.write(Float64Array.from(values));
    else tensor.write(Float32Array.from(values));
    return tensor;
  }

  /** Makes this scope a holder of a tensor's storage. */
  own(tensor: Tensor): Tensor {
    if (this.#owned.has(tensor)) return tensor;
    tensor.storage.retain();
    this.#owned.set(tensor, tensor.storage);
    return tensor;
  }

  /** Hands a tensor up to the parent scope, so that it outlives this one. */
  keep(tensor: Tensor): Tensor {
    invariant(this.#parent !== null, "a kept tensor has a parent scope to go to");
    return this.#parent.own(tensor);
  }

  /** Frees one tensor before the scope ends. */
  drop(tensor: Tensor): void {
    if (this.#owned.delete(tensor)) tensor.storage.release();
  }

  /** Runs one kernel. Operands marked `io` count as written state. */
  run<K extends KernelName>(name: K, operands: KernelOperands<K>, numbers: KernelNumbers<K>): void {
    for (const key of STATE_OPERANDS[name]) {
      const operand = (operands as Record<string, unknown>)[key];
      if (operand instanceof Tensor) operand.storage.version++;
    }
    this.backend.run(encodeCall(name, operands, numbers));
  }

  [Symbol.dispose](): void {
    for (const storage of this.#owned.values()) storage.release();
    this.#owned.clear();
  }
}
