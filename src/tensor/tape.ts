/**
 * The tape: calls in the order they ran, each holding only what its row lists as saved. `backward` walks it once, from
 * the last call to the first, and frees every saved tensor and every consumed gradient on the way.
 */

import { InternalError, invariant } from "../core/errors.ts";
import type { BackwardCall, Call, OpRow } from "./op.ts";
import { Parameter } from "./parameter.ts";
import type { Scope } from "./scope.ts";
import type { Storage } from "./storage.ts";
import { Tensor } from "./tensor.ts";

interface Saved {
  readonly storage: Storage;
  readonly version: number;
}

interface Entry {
  readonly row: OpRow<unknown>;
  readonly call: Call<unknown>;
  readonly held: readonly Saved[];
  /** Parameters are not held, but must not change before backward. */
  readonly read: readonly Saved[];
}

export class Tape implements Disposable {
  readonly #entries: Entry[] = [];
  /** Keyed by storage, so that a reshaped view is the same value. */
  readonly #tracked = new Set<Storage>();
  #savedBytes = 0;

  /** Bytes that the tape holds for backward, each storage counted once per entry that holds it. */
  get savedBytes(): number {
    return this.#savedBytes;
  }

  /** Asks for the gradient of a tensor that no recorded operation made. */
  track(tensor: Tensor): Tensor {
    this.#tracked.add(tensor.storage);
    return tensor;
  }

  isTracked(tensor: Tensor): boolean {
    return this.#tracked.has(tensor.storage);
  }

  record<A>(row: OpRow<A>, call: Call<A>): void {
    const needed = call.inputs.some((input) =>
      input instanceof Parameter ? input.trainable : input !== null && this.#isTrackedWhole(input),
    );
    if (!needed || row.backward === null) return;
    const tensors = [
      ...row.saves.inputs.map((i) => call.inputs[i]),
      ...row.saves.outputs.map((i) => call.outputs[i]),
      ...call.extras,
    ].filter((x): x is Tensor => x instanceof Tensor);
    const held = tensors.map((tensor) => ({ storage: tensor.storage, version: tensor.storage.version }));
    for (const { storage } of held) {
      storage.retain();
      this.#savedBytes += storage.bytes;
    }
    const read = call.inputs
      .filter((input): input is Parameter => input instanceof Parameter)
      .map(({ value }) => ({ storage: value.storage, version: value.storage.version }));
    for (const output of call.outputs) this.#tracked.add(output.storage);
    this.#entries.push({ row, call, held, read } as Entry);
  }

  #isTrackedWhole(input: Tensor): boolean {
    if (!this.#tracked.has(input.storage)) return false;
    invariant(
      input.bytes === input.storage.bytes,
      `${input.storage.label} is differentiated whole; use split for a part`,
    );
    return true;
  }

  /**
   * Gradients of the sum of `roots` (loss operations, whose rows take no incoming gradient) reach every trainable
   * parameter; those of `track`ed tensors are returned by storage, owned by `scope`.
   */
  backward(scope: Scope, roots: readonly Tensor[]): Map<Storage, Tensor> {
    const gradients = new Gradients(scope, this.#tracked);
    const isRoot = new Set(roots);
    for (let entry = this.#entries.pop(); entry !== undefined; entry = this.#entries.pop()) {
      this.#backwardEntry(entry, gradients, isRoot, scope);
      for (const { storage } of entry.held) storage.release();
    }
    this.#savedBytes = 0;
    return gradients.remaining();
  }

  #backwardEntry(entry: Entry, gradients: Gradients, isRoot: Set<Tensor>, scope: Scope): void {
    const { row, call } = entry;
    const reached = call.outputs.some((output) => isRoot.has(output) || gradients.has(output));
    if (!reached || row.backward === null) return;
    for (const { storage, version } of [...entry.held, ...entry.read]) {
      if (storage.version !== version) {
        throw new InternalError(`tape: ${storage.label} was written between forward and backward of ${row.name}`);
      }
    }
    using inner = scope.with({ tape: null });
    const backward: BackwardCall<unknown> = {
      ...call,
      scope: inner,
      grad: (i) => gradients.get(call.outputs[i]!),
      into: (i) => gradients.into(call.inputs[i] ?? null),
      whole: (i) => gradients.whole(call.inputs[i] ?? null, inner),
      pass: (i, gradient) => gradients.pass(call.inputs[i] ?? null, gradient),
    };
    const work = (): void => row.backward!(backward);
    if (scope.profiler === null) work();
    else scope.profiler.measure(`${row.name} backward`, row.flops(call.inputs, call.attrs).backward, work);
    for (const output of call.outputs) gradients.release(output);
  }

  [Symbol.dispose](): void {
    for (const { held } of this.#entries) for (const { storage } of held) storage.release();
    this.#entries.length = 0;
  }
}

/** Gradients in flight, by the tensor they belong to. */
class Gradients {
  readonly #scope: Scope;
  readonly #tracked: Set<Storage>;
  readonly #live = new Map<Storage, Tensor>();

  constructor(scope: Scope, tracked: Set<Storage>) {
    this.#scope = scope;
    this.#tracked = tracked;
  }

  has(tensor: Tensor): boolean {
    return this.#live.has(tensor.storage);
  }

  get(tensor: Tensor): Tensor | null {
    return this.#live.get(tensor.storage) ?? null;
  }

  into(input: Parameter | Tensor | null): { tensor: Tensor; accumulate: number } | null {
    if (input instanceof Parameter) {
      if (!input.trainable) return null;
      const { tensor, accumulate } = input.gradTarget();
      return { tensor, accumulate: Number(accumulate) };
    }
    if (input === null || !this.#tracked.has(input.storage)) return null;
    const present = this.#live.get(input.storage);
    if (present !== undefined) return { tensor: this.#exclusive(input, present), accumulate: 1 };
    const tensor = this.#scope.empty(input.shape, input.dtype, "gradient");
    this.#live.set(input.storage, tensor);
    return { tensor, accumulate: 0 };
  }

  whole(input: Parameter | Tensor | null, scratch: Scope): Tensor {
    invariant(input instanceof Tensor, "a gradient written whole belongs to a value");
    const target = this.into(input);
    if (target === null) return scratch.empty(input.shape, input.dtype, "gradient");
    invariant(target.accumulate === 0, `${input.storage.label} has one reader where its gradient is written whole`);
    return target.tensor;
  }

  /** A gradient that others hold too must not be added to in place. */
  #exclusive(input: Tensor, present: Tensor): Tensor {
    if (!present.storage.isShared) return present;
    const own = this.#scope.empty(present.shape, present.dtype, "gradient");
    const cols = own.columns;
    const numbers = { rows: own.rows, cols, xStride: cols, yStride: cols, accumulate: 0 };
    this.#scope.run("copy2d", { x: present, y: own }, numbers);
    this.#live.set(input.storage, own);
    this.#scope.drop(present);
    return own;
  }

  pass(input: Parameter | Tensor | null, gradient: Tensor): void {
    invariant(!(input instanceof Parameter), "a gradient is passed on to values, not to parameters");
    if (input === null || !this.#tracked.has(input.storage)) return;
    if (!this.#live.has(input.storage)) {
      // A view of its own, so that each holder can let go by itself.
      const alias = new Tensor(gradient.storage, input.shape, gradient.dtype, gradient.offset);
      this.#live.set(input.storage, this.#scope.own(alias));
      return;
    }
    const target = this.into(input)!;
    this.#scope.run("axpy", { x: gradient, y: target.tensor }, { n: gradient.size, scale: 1 });
  }

  release(tensor: Tensor): void {
    const gradient = this.#live.get(tensor.storage);
    if (gradient === undefined) return;
    this.#live.delete(tensor.storage);
    this.#scope.drop(gradient);
  }

  remaining(): Map<Storage, Tensor> {
    return new Map(this.#live);
  }
}
