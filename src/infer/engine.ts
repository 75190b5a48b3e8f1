/** Prompt in, text out: prefill, then one decode step per token against the cache. */

import type { GenerationConfig, ModelConfig, ResolvedConfig } from "../config/index.ts";
import { ConfigError, NumericError } from "../core/errors.ts";
import { Rng } from "../core/rng.ts";
import { nextTurn } from "../core/turn.ts";
import type { Backend } from "../kernels/index.ts";
import { checkRequest, DeepSeekModel, ropeTable, type MemoryBudget, type ModelWeights } from "../model/index.ts";
import { Scope, type Tensor } from "../tensor/index.ts";
import { DecodeStep } from "./decode-step.ts";
import { BLOCK_SIZE, KvCache, type CachedSequence } from "./kv-cache.ts";
import { countRequestBytes, prefill } from "./prefill.ts";
import { sample } from "./sampler.ts";
import { StopWatch } from "./stop.ts";

/** What the engine needs of a tokenizer. */
export interface TextCodec {
  readonly bosId: number;
  readonly eosId: number;
  /** Special ids that never belong into an answer, such as padding. */
  readonly neverGenerated?: readonly number[];
  encode(text: string): ArrayLike<number>;
  /** A decoder that never shows half a character. */
  createDecoder(): { push(id: number): string; flush(): string };
}

export interface EngineOptions {
  readonly backend: Backend;
  readonly settings: ResolvedConfig;
  readonly codec: TextCodec;
  /** Loads the weights; their memory belongs to the scope that it is given. */
  readonly openWeights: (scope: Scope) => ModelWeights | Promise<ModelWeights>;
  /** What weights and a request may take together; requests are not checked without it. */
  readonly memory?: MemoryBudget;
  /** Clock in milliseconds. */
  readonly now: () => number;
}

/** Type of the factors in matrix products. */
export type GemmImpl = ResolvedConfig["runtime"]["gemmImpl"];

export type FinishReason = "eos" | "stop" | "length" | "aborted";

/** A piece of the answer; the last one carries the reason for the end and the speed. */
export interface Piece {
  readonly text: string;
  readonly end?: GenerationEnd;
}

export interface GenerationEnd {
  readonly reason: FinishReason;
  readonly promptTokens: number;
  /** Generated tokens, an end-of-sequence token not counted. */
  readonly tokens: number;
  /** Tokens per second of decoding, the prompt not counted. */
  readonly tokensPerSec: number;
}

export class Engine implements Disposable {
  readonly config: ModelConfig;
  /** All that the model folder says, its generation settings among it. */
  readonly settings: ResolvedConfig;
  readonly #scope: Scope;
  readonly #model: DeepSeekModel;
  readonly #codec: TextCodec;
  readonly #cache: KvCache;
  /** Cosines and sines of the positions asked for so far. */
  #ropeTable: Tensor;
  /** Recorded when it is first needed, and again when the cache or the table has grown. */
  #step: DecodeStep | null = null;
  readonly #now: () => number;
  readonly #memory: MemoryBudget | undefined;

  private constructor(scope: Scope, weights: ModelWeights, options: EngineOptions) {
    const { settings, codec, now, memory } = options;
    const config = settings.model;
    this.settings = settings;
    this.config = config;
    this.#scope = scope;
    this.#codec = codec;
    this.#now = now;
    this.#memory = memory;
    this.#model = new DeepSeekModel({ ...config, nMtpLayers: 0 }, weights);
    this.#cache = new KvCache(scope, config);
    this.#ropeTable = this.#createRopeTable(BLOCK_SIZE);
  }

  static async open(options: EngineOptions): Promise<Engine> {
    const scope = Scope.root(options.backend, { compute: options.settings.runtime.gemmImpl });
    try {
      return new Engine(scope, await options.openWeights(scope), options);
    } catch (error) {
      scope[Symbol.dispose]();
      throw error;
    }
  }

  /** What the cache takes of memory now. */
  get cacheBytes(): number {
    return this.#cache.paged.pools.reduce((sum, pool) => sum + pool.bytes, 0);
  }

  /**
   * Streams the continuation of a prompt, a text or its ids. BOS stands before it exactly once; an empty prompt is BOS
   * alone.
   *
   * @throws ConfigError when the prompt fills the context, MemoryError before anything is allocated when prompt and
   * maxTokens need more than there is.
   */
  async *generate(
    prompt: string | ArrayLike<number>,
    options: GenerationConfig,
    signal?: AbortSignal,
  ): AsyncGenerator<Piece> {
    const { bosId } = this.#codec;
    const given = Array.from(typeof prompt === "string" ? this.#codec.encode(prompt) : prompt);
    const ids = given[0] === bosId ? given : [bosId, ...given];
    const { maxSeqLen } = this.config;
    if (ids.length >= maxSeqLen) {
      const rule = `must have at most ${maxSeqLen - 2} tokens, since the context holds ${maxSeqLen} with BOS and an answer`;
      throw new ConfigError("prompt", rule, ids.length - 1, "shorten the prompt");
    }
    const tokens = Math.min(ids.length + options.maxTokens, maxSeqLen);
    this.#checkMemory(ids.length, tokens);
    this.#reachPosition(tokens);
    const sequence = this.#cache.open(tokens);
    try {
      yield* this.#stream(ids, sequence, options, signal);
    } finally {
      this.#cache.close(sequence);
    }
  }

  async *#stream(
    ids: number[],
    sequence: CachedSequence,
    options: GenerationConfig,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Piece> {
    const rng = new Rng(options.seed, "sample");
    const decoder = this.#codec.createDecoder();
    const stop = new StopWatch(options.stop);
    const seen = new Set(ids);
    const promptTokens = ids.length;
    const limit = Math.min(options.maxTokens, this.config.maxSeqLen - promptTokens);
    let reason: FinishReason = "length";
    let tokens = 0;
    let logits = await this.#prefill(ids, sequence);
    const start = this.#now();
    while (tokens < limit) {
      if (signal?.aborted === true) {
        reason = "aborted";
        break;
      }
      for (const banned of this.#codec.neverGenerated ?? []) logits[banned] = -Infinity;
      const id = sample(logits, seen, options, rng);
      if (id === this.#codec.eosId) {
        reason = "eos";
        break;
      }
      tokens++;
      seen.add(id);
      const { shown, stopped } = stop.push(decoder.push(id));
      if (shown !== "") yield { text: shown };
      if (stopped) {
        reason = "stop";
        break;
      }
      if (tokens < limit) logits = await this.#decode(id, sequence);
    }
    const rest = reason === "stop" ? "" : restOf(stop, decoder.flush());
    const seconds = (this.#now() - start) / 1000;
    const tokensPerSec = tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : 0;
    yield { text: rest, end: { reason, promptTokens, tokens, tokensPerSec } };
  }

  async #prefill(ids: readonly number[], sequence: CachedSequence): Promise<Float32Array> {
    using scope = this.#scope.child();
    const options = { cache: this.#cache, sequence, ropeTable: this.#ropeTable };
    return logitsOf(prefill(scope, this.#model, ids, options));
  }

  #checkMemory(promptTokens: number, tokens: number): void {
    if (this.#memory === undefined) return;
    const request = countRequestBytes(this.#model, promptTokens, tokens);
    const what = `a prompt of ${promptTokens} tokens and ${tokens - promptTokens} to write`;
    checkRequest(this.#memory, this.#model.weights.bytes, request, what);
  }

  async #decode(id: number, sequence: CachedSequence): Promise<Float32Array> {
    const position = sequence.length;
    const [slot] = this.#cache.extend(sequence, 1);
    const logits = await this.#decodeStep().run([{ id, position, slot: slot!, blocks: sequence.blocks }]);
    checkFinite(logits);
    await nextTurn();
    return logits;
  }

  #decodeStep(): DecodeStep {
    const { paged: cache, blocks: maxBlocks } = this.#cache;
    if (this.#step?.cache !== cache || this.#step.ropeTable !== this.#ropeTable) {
      this.#step?.[Symbol.dispose]();
      this.#step = null;
      const options = { model: this.#model, sequences: 1, cache, maxBlocks, ropeTable: this.#ropeTable };
      this.#step = new DecodeStep(this.#scope, options);
    }
    return this.#step;
  }

  /** Makes the table long enough for `positions`. */
  #reachPosition(positions: number): void {
    if (positions <= this.#ropeTable.rows) return;
    const table = this.#createRopeTable(Math.ceil(positions / BLOCK_SIZE) * BLOCK_SIZE);
    this.#scope.drop(this.#ropeTable);
    this.#ropeTable = table;
  }

  #createRopeTable(positions: number): Tensor {
    return this.#scope.from(ropeTable(this.config, positions), [positions, this.config.qkRopeHeadDim]);
  }

  [Symbol.dispose](): void {
    this.#step?.[Symbol.dispose]();
    this.#scope[Symbol.dispose]();
  }
}

function restOf(stop: StopWatch, text: string): string {
  const { shown, stopped } = stop.push(text);
  return stopped ? shown : shown + stop.flush();
}

async function logitsOf(logits: Tensor): Promise<Float32Array> {
  const values = (await logits.read()) as Float32Array;
  checkFinite(values);
  return values;
}

function checkFinite(logits: Float32Array): void {
  for (let id = 0; id < logits.length; id++) {
    if (Number.isFinite(logits[id])) continue;
    throw new NumericError(`logit of token ${id}`, "must be finite", logits[id], "check the weights of this model");
  }
}
