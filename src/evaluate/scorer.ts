/** A model that reads windows of tokens, without a cache, and says how likely it held what came next. */

import type { ModelConfig, ResolvedConfig } from "../config/index.ts";
import { NumericError } from "../core/errors.ts";
import { createPlanningBackend, type Backend } from "../kernels/index.ts";
import { checkRequest, DeepSeekModel, ropeTable, type MemoryBudget, type ModelWeights } from "../model/index.ts";
import { Scope, type Tensor } from "../tensor/index.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import type { Window } from "./windows.ts";

export interface ScorerOptions {
  readonly backend: Backend;
  readonly settings: ResolvedConfig;
  readonly tokenizer: Tokenizer;
  /** Loads the weights; their memory belongs to the scope that it is given. */
  readonly openWeights: (scope: Scope) => ModelWeights | Promise<ModelWeights>;
  /** What weights and a window may take together; windows are not checked without it. */
  readonly memory?: MemoryBudget;
}

/** Logits held at a time, in values: 2^21 are 8 MiB of f32. */
const CHUNK_LOGITS = 2 ** 21;

export class Scorer implements Disposable {
  readonly config: ModelConfig;
  readonly tokenizer: Tokenizer;
  readonly #scope: Scope;
  readonly #model: DeepSeekModel;
  readonly #memory: MemoryBudget | undefined;
  /** Cosines and sines of the positions asked for so far. */
  #ropeTable: Tensor;

  private constructor(scope: Scope, weights: ModelWeights, { settings, tokenizer, memory }: ScorerOptions) {
    this.config = settings.model;
    this.tokenizer = tokenizer;
    this.#scope = scope;
    this.#model = new DeepSeekModel({ ...settings.model, nMtpLayers: 0 }, weights);
    this.#memory = memory;
    this.#ropeTable = this.#createRopeTable(1);
  }

  static async open(options: ScorerOptions): Promise<Scorer> {
    const scope = Scope.root(options.backend, { compute: options.settings.runtime.gemmImpl });
    try {
      return new Scorer(scope, await options.openWeights(scope), options);
    } catch (error) {
      scope[Symbol.dispose]();
      throw error;
    }
  }

  get weightBytes(): number {
    return this.#model.weights.bytes;
  }

  /**
   * −ln p of each target of the window, in nats.
   *
   * @throws NumericError when one is not finite, MemoryError before anything is allocated when a window is too long.
   */
  async losses(window: Window): Promise<Float32Array> {
    using scope = this.#scope.child();
    const count = window.targets.length;
    const targets = scope.from(window.targets, [count], "i32");
    const losses = scope.empty([count]);
    let row = 0;
    for (const logits of this.#chunks(scope, window)) {
      const [rows, vocab] = [logits.rows, logits.columns];
      const operands = {
        logits,
        targets: targets.view(row, [rows]),
        losses: losses.view(row, [rows]),
        dLogits: undefined,
      };
      scope.run("softmaxCrossEntropy", operands, { rows, vocab, scale: 1 });
      row += rows;
    }
    const values = (await losses.read()) as Float32Array;
    const at = values.findIndex((value) => !Number.isFinite(value));
    if (at < 0) return values;
    throw new NumericError(`loss of token ${window.targets[at]}`, "must be finite", values[at], "check the weights");
  }

  /** The logits [rows, V] of the window's scored rows, in chunks; the same chunks for every model of this vocabulary. */
  async *logits(window: Window): AsyncGenerator<Float32Array> {
    using scope = this.#scope.child();
    for (const logits of this.#chunks(scope, window)) yield (await logits.read()) as Float32Array;
  }

  #chunks(scope: Scope, window: Window): Iterable<Tensor> {
    this.#reachPosition(window.tokens.length);
    return logitChunks(scope, this.#model, window, this.#ropeTable);
  }

  /** Makes the table long enough for `positions`. @throws MemoryError when a window of so many does not fit. */
  #reachPosition(positions: number): void {
    if (positions <= this.#ropeTable.rows) return;
    if (this.#memory !== undefined) {
      const request = countWindowBytes(this.#model, positions);
      checkRequest(this.#memory, this.#model.weights.bytes, request, `a window of ${positions} tokens`);
    }
    const table = this.#createRopeTable(positions);
    this.#scope.drop(this.#ropeTable);
    this.#ropeTable = table;
  }

  #createRopeTable(positions: number): Tensor {
    return this.#scope.from(ropeTable(this.config, positions), [positions, this.config.qkRopeHeadDim]);
  }

  [Symbol.dispose](): void {
    this.#scope[Symbol.dispose]();
  }
}

/** Logits [rows, V] of the rows of a window that are scored. */
function logitChunks(
  scope: Scope,
  model: DeepSeekModel,
  { tokens, from }: Pick<Window, "tokens" | "from">,
  ropeTable: Tensor,
): Iterable<Tensor> {
  const ints = (values: Int32Array): Tensor => scope.from(values, [values.length], "i32");
  const positions = ints(Int32Array.from(tokens, (_, i) => i));
  const at = { positions, seqStarts: ints(Int32Array.of(0, tokens.length)), ropeTable };
  const rows = Math.max(1, Math.floor(CHUNK_LOGITS / model.config.vocabSize));
  return model.logitChunks(scope, ints(tokens), at, { from, rows });
}

/** Bytes that a window takes at its peak: it is run on a backend that only keeps account. */
function countWindowBytes(model: DeepSeekModel, tokens: number): number {
  const backend = createPlanningBackend();
  using scope = Scope.root(backend);
  const ropeTable = scope.empty([tokens, model.config.qkRopeHeadDim]);
  for (const _ of logitChunks(scope, model, { tokens: new Int32Array(tokens), from: 0 }, ropeTable));
  return backend.stats().peakBytes;
}
