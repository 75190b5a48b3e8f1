/**
 * The trainer: parameters, gradients, moments and the place in the data, and what one step and one evaluation do with
 * them. It neither prints nor writes files.
 */

import type { RunConfig } from "../config/index.ts";
import { NumericError, invariant } from "../core/errors.ts";
import { nextTurn } from "../core/turn.ts";
import { TrainBatches, evaluationBatches, type Batch, type DataPosition, type TokenStream } from "../data/index.ts";
import type { Backend } from "../kernels/index.ts";
import {
  DeepSeekModel,
  allocateParameters,
  initialiseParameters,
  ropeTable,
  type RoutingSink,
} from "../model/index.ts";
import { AdamW, clipScale, learningRate } from "../optim/index.ts";
import { Profiler, Scope, Tape, type Parameter, type Tensor } from "../tensor/index.ts";
import { uploadBatch, windowStarts } from "./device-batch.ts";
import { routingStats, type RoutingStats } from "./routing-stats.ts";

export interface TrainerOptions {
  readonly backend: Backend;
  readonly config: RunConfig;
  readonly train: TokenStream;
  readonly validation: TokenStream;
  /** UTF-8 bytes of every token. */
  readonly tokenBytes: ArrayLike<number>;
  /** Clock in milliseconds. */
  readonly now: () => number;
}

export interface StepReport {
  /** Counted from 1. */
  readonly step: number;
  /** Main cross-entropy, nats per token. */
  readonly loss: number;
  /** Mean cross-entropy of the prediction modules, unweighted; 0 without any. */
  readonly mtpLoss: number;
  /** Sum of the layers' balance losses, already weighted. */
  readonly balanceLoss: number;
  readonly lr: number;
  readonly gradNorm: number;
  /** Input tokens of this step. */
  readonly tokens: number;
  readonly tokensPerSec: number;
  /** Floating point operations that the step asks for, by the operations' rows. */
  readonly flops: number;
  readonly ms: number;
  /** UTF-8 bytes of the predicted tokens. */
  readonly bytes: number;
  /** Predicted tokens. */
  readonly targets: number;
}

export interface EvalReport {
  /** Steps taken before this evaluation. */
  readonly step: number;
  /** Nats per token over the validation text. */
  readonly valLoss: number;
  readonly bitsPerByte: number;
  readonly tokens: number;
  /** For each mixture of the main model, in order. */
  readonly routing: readonly RoutingStats[];
}

/** Everything of a trainer that is not a tensor. */
export interface TrainerState {
  readonly step: number;
  readonly position: DataPosition;
  /** Input tokens seen. */
  readonly tokens: number;
}

const DIVERGED = "start again with a lower lr or a longer warm-up; the last checkpoint is as it was";

/** Places in the report tensor that is read once per step. */
const MAIN = 0;
const MTP = 1;
const BALANCE = 2;
const NORMS = 3;

export class Trainer implements Disposable {
  readonly model: DeepSeekModel;
  readonly optimizer: AdamW;
  readonly config: RunConfig;
  readonly #options: TrainerOptions;
  readonly #scope: Scope;
  readonly #profiler: Profiler;
  readonly #trainable: readonly Parameter[];
  readonly #ropeTable: Tensor;
  /** Choices per expert of each mixture since the last step. */
  readonly #counts: readonly Tensor[];
  #batches: TrainBatches;
  #step = 0;
  #tokens = 0;

  /** Allocates and initialises everything. @throws ConfigError when the sequence is longer than the data. */
  constructor(options: TrainerOptions) {
    const { backend, config, now } = options;
    this.config = config;
    this.#options = options;
    this.#batches = this.#batchesFrom({ epoch: 0, index: 0 });
    this.#profiler = new Profiler(now);
    this.#scope = Scope.root(backend, { compute: config.training.precision, profiler: this.#profiler });
    const parameters = allocateParameters(this.#scope, config.model);
    initialiseParameters(this.#scope, parameters, config.training.seed);
    this.model = new DeepSeekModel(config.model, parameters);
    this.#trainable = parameters.trainable;
    for (const parameter of this.#trainable) parameter.allocateGrad(this.#scope);
    if (config.training.precision === "bf16") this.#allocateCopies();
    const adamw = this.#trainable.map((parameter) => ({
      parameter,
      decay: parameters.specs.get(parameter.name)!.decay,
    }));
    this.optimizer = new AdamW(this.#scope, adamw, config.training);
    const { seqLen } = config.training;
    this.#ropeTable = this.#scope.from(ropeTable(config.model, seqLen), [seqLen, config.model.qkRopeHeadDim]);
    const { nRoutedExperts } = config.model;
    this.#counts = Array.from({ length: this.model.mixtures }, () => this.#scope.empty([nRoutedExperts]));
  }

  get backend(): Backend {
    return this.#options.backend;
  }

  get state(): TrainerState {
    return { step: this.#step, position: this.#batches.position, tokens: this.#tokens };
  }

  /** Goes on from a saved state; parameters and moments are loaded by the caller first. */
  restore(state: TrainerState): void {
    this.#step = state.step;
    this.#tokens = state.tokens;
    this.#batches = this.#batchesFrom(state.position);
    this.refreshCopies();
  }

  /**
   * One optimizer step over batchSize windows.
   *
   * @throws NumericError naming the step and the tensor when the loss or a gradient is not finite; nothing is updated.
   */
  async step(): Promise<StepReport> {
    const { now } = this.#options;
    const { training } = this.config;
    const start = now();
    this.#profiler.reset();
    const { position } = this.#batches;
    const batches = Array.from({ length: training.gradAccumSteps }, () => this.#batches.next());
    using scope = this.#scope.child();
    const report = scope.empty([NORMS + this.#trainable.length]);
    scope.run("fill", { y: report }, { n: report.size, value: 0 });
    for (const parameter of this.#trainable) parameter.clearGrad();
    const totals = targetTotals(batches, this.config.model.nMtpLayers);
    for (const [i, batch] of batches.entries()) this.#accumulate(batch, totals, report, i > 0);
    const step = this.#step + 1;
    const { values, gradNorm } = await this.#readReport(report, step).catch((error: unknown) => {
      this.#batches = this.#batchesFrom(position);
      throw error;
    });
    const lr = learningRate(training, step);
    this.optimizer.step(scope, { step, lr, gradScale: clipScale(gradNorm, training.gradClip) });
    this.#updateRouters(scope);
    const tokens = batches.reduce((sum, batch) => sum + batch.tokens.length, 0);
    this.#step = step;
    this.#tokens += tokens;
    const ms = now() - start;
    return {
      step,
      lr,
      gradNorm,
      tokens,
      ms,
      loss: values[MAIN]!,
      mtpLoss: values[MTP]!,
      balanceLoss: values[BALANCE]!,
      tokensPerSec: (tokens / ms) * 1000,
      flops: this.#profiler.flops,
      targets: totals.main,
      bytes: batches.reduce((sum, batch) => sum + batch.bytes, 0),
    };
  }

  /**
   * Loss and bits per byte over the validation text, and where its tokens went. Yields a macrotask before every batch, so
   * that signals are heard.
   *
   * @throws the signal's reason once it is aborted.
   */
  async evaluate(signal?: AbortSignal): Promise<EvalReport> {
    const { seqLen, microBatchSize } = this.config.training;
    const { validation, tokenBytes } = this.#options;
    using scope = this.#scope.child();
    const total = scope.empty([1]);
    const counts = this.#counts.slice(0, this.config.model.nLayers - this.config.model.nDenseLayers);
    const fresh = counts.map(({ shape: [experts] }) => scope.empty([experts!]));
    for (const y of [total, ...fresh]) scope.run("fill", { y }, { n: y.size, value: 0 });
    let [nats, targets, bytes] = [0, 0, 0];
    for (const batch of evaluationBatches(validation, { seqLen, batchSize: microBatchSize, tokenBytes })) {
      await nextTurn();
      signal?.throwIfAborted();
      using inner = scope.child();
      const onRoute = countInto(inner, fresh, true);
      const { main } = this.model.losses(
        inner,
        uploadBatch(inner, batch, this.#ropeTable),
        { main: 1, mtp: [] },
        { balance: null, onRoute },
      );
      inner.run("sum", { x: main, y: total }, { n: main.size, scale: 1, accumulate: 0 });
      nats += (await total.read())[0]!;
      targets += batch.targetCount;
      bytes += batch.bytes;
    }
    const routing: RoutingStats[] = [];
    for (const tensor of fresh) routing.push(routingStats(Array.from(await tensor.read())));
    return {
      step: this.#step,
      valLoss: nats / targets,
      bitsPerByte: nats / Math.LN2 / bytes,
      tokens: targets,
      routing,
    };
  }

  /** Brings the bf16 copies up to date after parameters were written from outside. */
  refreshCopies(): void {
    using scope = this.#scope.child();
    for (const { value: x, copy: y } of this.#trainable) {
      if (y === null) continue;
      const cols = x.columns;
      scope.run("copy2d", { x, y }, { rows: x.rows, cols, xStride: cols, yStride: cols, accumulate: 0 });
    }
  }

  [Symbol.dispose](): void {
    this.#scope[Symbol.dispose]();
  }

  #batchesFrom(position: DataPosition): TrainBatches {
    const { config, train, tokenBytes } = this.#options;
    const { seqLen, microBatchSize, seed } = config.training;
    const mtpDepth = config.model.nMtpLayers;
    return new TrainBatches(train, { seqLen, batchSize: microBatchSize, tokenBytes, mtpDepth, seed, position });
  }

  /** Matrices that multiply in bf16 get a rounded copy; the router and the embedding table stay f32. */
  #allocateCopies(): void {
    for (const parameter of this.#trainable) {
      const group = this.model.parameters.specs.get(parameter.name)!.group;
      if (parameter.shape.length < 2 || group === "gates") continue;
      if (group === "embedding" && !this.config.model.tieEmbeddings) continue;
      parameter.copy = this.#scope.empty(parameter.shape, "bf16", `bf16 ${parameter.name}`);
    }
    this.refreshCopies();
  }

  /** Adds one micro-batch to the gradients, the expert counts and the losses in `report`. */
  #accumulate(batch: Batch, totals: TargetTotals, report: Tensor, again: boolean): void {
    const { model, training } = this.config;
    using tape = new Tape();
    using scope = this.#scope.with({ tape });
    const device = uploadBatch(scope, batch, this.#ropeTable);
    const balance: Tensor[] = [];
    const alpha = model.seqBalanceAlpha / training.gradAccumSteps;
    const segments = windowStarts(scope, batch.tokens.length, training.seqLen);
    const onLoss = (loss: Tensor): void => void balance.push(scope.own(loss));
    const routing: RoutingSink = {
      balance: alpha > 0 ? { segments, alpha, onLoss } : null,
      onRoute: countInto(scope, this.#counts, again),
    };
    const scales = {
      main: 1 / totals.main,
      mtp: totals.mtp.map((count) => model.mtpLossWeight / totals.mtp.length / Math.max(1, count)),
    };
    const { main, mtp } = this.model.losses(scope, device, scales, routing);
    const addTo = (slot: number, x: Tensor, scale: number): void =>
      scope.run("sum", { x, y: report.view(slot, [1]) }, { n: x.size, scale, accumulate: 1 });
    addTo(MAIN, main, scales.main);
    for (const [k, losses] of mtp.entries()) addTo(MTP, losses, 1 / totals.mtp.length / Math.max(1, totals.mtp[k]!));
    for (const loss of balance) addTo(BALANCE, loss, 1);
    tape.backward(scope, [main, ...mtp, ...balance]);
  }

  /** Reads losses and gradient norms at once. */
  async #readReport(report: Tensor, step: number): Promise<{ values: Float64Array; gradNorm: number }> {
    using scope = this.#scope.child();
    for (const [i, { grad, name }] of this.#trainable.entries()) {
      invariant(grad !== null, `a gradient reached ${name}`);
      scope.run("sumSquares", { x: grad, y: report.view(NORMS + i, [1]) }, { n: grad.size });
    }
    const values = Float64Array.from(await report.read());
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) {
      const tensor =
        bad < NORMS ? ["loss", "mtp loss", "balance loss"][bad]! : `gradient of ${this.#trainable[bad - NORMS]!.name}`;
      throw new NumericError(`step ${step}: ${tensor}`, "must be finite", values[bad]!, DIVERGED, step);
    }
    const squares = values.subarray(NORMS).reduce((sum, value) => sum + value, 0);
    return { values, gradNorm: Math.sqrt(squares) };
  }

  /**
   * Looks at every weight and moment, so that a state without worth is not kept in the place of a good one.
   *
   * @throws NumericError naming the step and the first tensor that is not finite.
   */
  async checkFinite(): Promise<void> {
    using scope = this.#scope.child();
    const states = this.optimizer.moments.flatMap(({ name, m, v }) => [
      { name, x: this.model.parameters.get(name).value },
      { name: `first moment of ${name}`, x: m },
      { name: `second moment of ${name}`, x: v },
    ]);
    const sums = scope.empty([states.length]);
    for (const [i, { x }] of states.entries())
      scope.run("sum", { x, y: sums.view(i, [1]) }, { n: x.size, scale: 1, accumulate: 0 });
    const values = await sums.read();
    const bad = states.findIndex((_, i) => !Number.isFinite(values[i]));
    if (bad < 0) return;
    throw new NumericError(
      `step ${this.#step}: ${states[bad]!.name}`,
      "must be finite",
      values[bad]!,
      DIVERGED,
      this.#step,
    );
  }

  /** Moves the correction bias of every router towards an even load over the whole step. */
  #updateRouters(scope: Scope): void {
    const { model } = this.config;
    if (model.topkMethod !== "noaux_tc" || model.routerBiasSpeed === 0) return;
    for (const [mixture, counts] of this.#counts.entries()) {
      const bias = this.model.parameters.get(`layers.${mixture + model.nDenseLayers}.ffn.gate.bias`).value;
      scope.run("routerBiasInto", { counts, bias }, { experts: counts.size, speed: model.routerBiasSpeed });
    }
  }
}

interface TargetTotals {
  readonly main: number;
  readonly mtp: readonly number[];
}

/** Targets over all micro-batches, so that every token of the step weighs the same. */
function targetTotals(batches: readonly Batch[], depths: number): TargetTotals {
  const count = (targets: Int32Array): number => targets.reduce((sum, target) => sum + Number(target >= 0), 0);
  return {
    main: batches.reduce((sum, batch) => sum + batch.targetCount, 0),
    mtp: Array.from({ length: depths }, (_, k) => batches.reduce((sum, batch) => sum + count(batch.mtpTargets[k]!), 0)),
  };
}

function countInto(
  scope: Scope,
  counts: readonly Tensor[],
  accumulate: boolean,
): (mixture: number, idx: Tensor) => void {
  return (mixture, idx) => {
    const tensor = counts[mixture]!;
    scope.run(
      "expertCounts",
      { idx, counts: tensor },
      { n: idx.size, experts: tensor.size, accumulate: Number(accumulate) },
    );
  };
}
