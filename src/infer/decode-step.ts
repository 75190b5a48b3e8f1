/**
 * One decode step for B sequences, as a list of kernel calls that is recorded once and replayed for every token. What
 * differs from token to token stands in one buffer, which is rewritten before each replay.
 */

import { invariant } from "../core/errors.ts";
import { record, type Recording } from "../kernels/index.ts";
import type { DeepSeekModel, PagedCache } from "../model/index.ts";
import { Scope, type Tensor } from "../tensor/index.ts";

/** The next token of one sequence. */
export interface DecodeRow {
  readonly id: number;
  readonly position: number;
  /** Pool row that receives it. */
  readonly slot: number;
  readonly blocks: readonly number[];
}

interface DecodeStepOptions {
  readonly model: DeepSeekModel;
  /** Number of sequences B. */
  readonly sequences: number;
  readonly cache: PagedCache;
  /** Blocks that a sequence has at most. */
  readonly maxBlocks: number;
  /** [maxPos, R] */
  readonly ropeTable: Tensor;
}

export class DecodeStep implements Disposable {
  readonly cache: PagedCache;
  readonly ropeTable: Tensor;
  readonly #sequences: number;
  readonly #maxBlocks: number;
  readonly #recording: Recording;
  readonly #inputs: Tensor;
  readonly #values: Int32Array;
  readonly #logits: Tensor;

  /** @param scope of the weights, the pools and the table; the step owns what it allocates itself. */
  constructor(scope: Scope, options: DecodeStepOptions) {
    this.cache = options.cache;
    this.ropeTable = options.ropeTable;
    this.#sequences = options.sequences;
    this.#maxBlocks = options.maxBlocks;
    const { recording, result } = record(scope.backend, (recorder) => {
      const step = Scope.root(recorder, { compute: scope.compute, dtype: scope.dtype });
      return recordStep(step, options);
    });
    this.#recording = recording;
    this.#inputs = result.inputs;
    this.#logits = result.logits;
    this.#values = new Int32Array(this.#inputs.size);
    const seqStarts = Int32Array.from({ length: options.sequences + 1 }, (_, b) => b);
    this.#values.set(seqStarts, this.#values.length - seqStarts.length);
  }

  /** Logits [B, V] after one more token of each sequence. */
  async run(rows: readonly DecodeRow[]): Promise<Float32Array> {
    const B = this.#sequences;
    invariant(rows.length === B, `a step of ${B} sequences gets as many rows, got ${rows.length}`);
    const values = this.#values;
    for (const [b, { id, position, slot, blocks }] of rows.entries()) {
      values[b] = id;
      values[B + b] = position;
      values[2 * B + b] = slot;
      values[3 * B + b] = position + 1;
      values.set(blocks, 4 * B + b * this.#maxBlocks);
    }
    this.#inputs.write(values);
    this.#recording.replay();
    return (await this.#logits.read()) as Float32Array;
  }

  [Symbol.dispose](): void {
    this.#recording[Symbol.dispose]();
  }
}

/** `inputs` holds ids, positions, slots and lengths [B] each, the block table [B, maxBlocks], and seqStarts [B + 1]. */
function recordStep(scope: Scope, options: DecodeStepOptions): { inputs: Tensor; logits: Tensor } {
  const { model, sequences: B, cache, maxBlocks, ropeTable } = options;
  const seqStartsAt = B * (4 + maxBlocks);
  const inputs = scope.empty([seqStartsAt + B + 1], "i32", "decode inputs");
  const column = (i: number): Tensor => inputs.view(i * B, [B]);
  const blockTable = inputs.view(4 * B, [B, maxBlocks]);
  const at = { positions: column(1), seqStarts: inputs.view(seqStartsAt, [B + 1]), ropeTable };
  const logits = model.decode(scope, column(0), at, { ...cache, slots: column(2), seqLens: column(3), blockTable });
  return { inputs, logits };
}
