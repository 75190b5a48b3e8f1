/**
 * The DeepSeek decoder: embedding, layers, final norm, head, and the multi-token prediction modules behind them.
 * It runs exactly the weights of the blueprint.
 *
 * **Source:** DeepSeek-V3 report 2.1–2.2; deepseek-ai/DeepSeek-V3 inference/model.py, Transformer.
 */

import type { ModelConfig } from "../config/index.ts";
import { invariant } from "../core/errors.ts";
import {
  concat,
  embedding,
  headLoss,
  linear,
  rmsNorm,
  type Parameter,
  type Scope,
  type Tensor,
  type Weight,
} from "../tensor/index.ts";
import type { Attention, CacheSlots, LayerCache, Sequences } from "./attention.ts";
import { moe, swiglu, type FeedForward, type RoutingSink } from "./ffn.ts";
import { Gqa } from "./gqa.ts";
import { decoderLayer, type CacheUse, type LayerWeights } from "./layer.ts";
import { weightExperts, weightLinear } from "./linear.ts";
import { Mla } from "./mla.ts";
import type { ModelWeights } from "./model-weights.ts";
import { ParameterSet } from "./parameters.ts";
import { perHead } from "./per-head.ts";

/** Tokens to learn from. All i32; a negative target is not counted. */
export interface TrainingBatch extends Sequences {
  /** [N] */
  readonly tokens: Tensor;
  /** [N] the next token. */
  readonly targets: Tensor;
  /** For each prediction depth k = 1…: [N] the token k further on, and its own next token. */
  readonly mtp: readonly { readonly tokens: Tensor; readonly targets: Tensor }[];
}

/** Factors on the summed losses: usually one over the number of targets. */
export interface LossScales {
  readonly main: number;
  readonly mtp: readonly number[];
}

/** Losses in nats by token [N]. */
export interface Losses {
  readonly main: Tensor;
  readonly mtp: readonly Tensor[];
}

interface MtpModule {
  readonly embeddingNorm: Parameter;
  readonly hiddenNorm: Parameter;
  readonly projection: Weight;
  readonly layer: LayerWeights;
  readonly headNorm: Parameter;
}

const NO_ROUTING: RoutingSink = { balance: null };

export class DeepSeekModel {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  readonly #layers: readonly LayerWeights[];
  readonly #mtp: readonly MtpModule[];
  readonly #embed: Weight;
  readonly #norm: Parameter;
  readonly #head: Weight;

  constructor(config: ModelConfig, weights: ModelWeights) {
    this.config = config;
    this.weights = weights;
    this.#embed = weights.matrix("embed");
    this.#norm = weights.vector("norm");
    this.#head = config.tieEmbeddings ? this.#embed : weights.matrix("head");
    const { nLayers, nMtpLayers } = config;
    this.#layers = range(nLayers).map((i) => layerWeights(config, weights, i));
    this.#mtp = range(nMtpLayers).map((k) => mtpModule(config, weights, nLayers + k));
  }

  /** The weights of a model that is trained. */
  get parameters(): ParameterSet {
    invariant(this.weights instanceof ParameterSet, "a model that is trained is made of parameters");
    return this.weights;
  }

  /** Number of mixtures, those of the prediction modules included. */
  get mixtures(): number {
    const { nLayers, nDenseLayers, nMtpLayers, nRoutedExperts } = this.config;
    return nRoutedExperts === 0 ? 0 : nLayers - nDenseLayers + nMtpLayers;
  }

  /** Losses of the main head and of every prediction depth; each is a root of backward. */
  losses(scope: Scope, batch: TrainingBatch, scales: LossScales, routing: RoutingSink = NO_ROUTING): Losses {
    const { rmsNormEps, mtpHidden } = this.config;
    const hidden = this.#hidden(scope, batch.tokens, { at: batch, routing, use: () => ({ kind: "none" }) });
    const normed = rmsNorm(scope, hidden, this.#norm, rmsNormEps);
    const main = headLoss(scope, normed, this.#head, batch.targets, scales.main);
    let previous = mtpHidden === "post_norm" ? normed : hidden;
    const mtp = batch.mtp.map(({ tokens, targets }, k) => {
      const module = this.#mtp[k]!;
      const h = this.#predictAhead(scope, module, { previous, tokens, at: batch, routing });
      const ahead = rmsNorm(scope, h, module.headNorm, rmsNormEps);
      previous = mtpHidden === "post_norm" ? ahead : h;
      return headLoss(scope, ahead, this.#head, targets, scales.mtp[k]!);
    });
    return { main, mtp };
  }

  /** Logits [N, V] of every token of the call, without a cache. For tests and scoring of short texts. */
  logits(scope: Scope, tokens: Tensor, at: Sequences, routing: RoutingSink = NO_ROUTING): Tensor {
    using inner = scope.child();
    const hidden = this.#hidden(inner, tokens, { at, routing, use: () => ({ kind: "none" }) });
    return inner.keep(this.#project(inner, hidden));
  }

  /**
   * Logits [≤ rows, V] of the tokens from row `from` on, without a cache, chunk by chunk: so many are in memory at a time.
   * A chunk is freed when the next one is asked for.
   */
  *logitChunks(
    scope: Scope,
    tokens: Tensor,
    at: Sequences,
    { from, rows }: { from: number; rows: number },
  ): Generator<Tensor> {
    using inner = scope.child();
    const hidden = this.#hidden(inner, tokens, { at, routing: NO_ROUTING, use: () => ({ kind: "none" }) });
    const { dim } = this.config;
    for (let row = from; row < hidden.rows; row += rows) {
      using chunk = inner.child();
      const count = Math.min(rows, hidden.rows - row);
      yield this.#project(chunk, hidden.view(row * dim, [count, dim]));
    }
  }

  /** Reads a prompt into the cache (MLA naive) and returns the logits [1, V] of its last token. */
  prefill(scope: Scope, tokens: Tensor, at: Sequences, cache: PagedCache & Pick<CacheSlots, "slots">): Tensor {
    using inner = scope.child();
    const use = (layer: number): CacheUse => ({ kind: "prefill", cache: { ...cache, pool: cache.pools[layer]! } });
    const hidden = this.#hidden(inner, tokens, { at, routing: NO_ROUTING, use });
    const { dim } = this.config;
    return inner.keep(this.#project(inner, hidden.view((hidden.rows - 1) * dim, [1, dim])));
  }

  /** One token for each of B sequences against the cache (MLA absorbed); logits [B, V]. */
  decode(scope: Scope, tokens: Tensor, at: Sequences, cache: PagedCache & CacheSlots): Tensor {
    using inner = scope.child();
    const use = (layer: number): CacheUse => ({ kind: "decode", cache: { ...cache, pool: cache.pools[layer]! } });
    return inner.keep(this.#project(inner, this.#hidden(inner, tokens, { at, routing: NO_ROUTING, use })));
  }

  #project(scope: Scope, hidden: Tensor): Tensor {
    return linear(scope, rmsNorm(scope, hidden, this.#norm, this.config.rmsNormEps), this.#head);
  }

  /** The residual stream after the last layer, before the final norm. */
  #hidden(
    scope: Scope,
    tokens: Tensor,
    call: { at: Sequences; routing: RoutingSink; use: (layer: number) => CacheUse },
  ): Tensor {
    const { at, routing, use } = call;
    let x = embedding(scope, tokens, this.#embed);
    for (const [i, layer] of this.#layers.entries()) {
      const y = decoderLayer(scope, layer, x, { at, routing, use: use(i) });
      scope.drop(x);
      x = y;
    }
    return x;
  }

  /** The stream [N, D] of one prediction module: its layer over [norm(embedding) ; norm(previous hidden)]. */
  #predictAhead(
    scope: Scope,
    module: MtpModule,
    call: { previous: Tensor; tokens: Tensor; at: Sequences; routing: RoutingSink },
  ): Tensor {
    using inner = scope.child();
    const { rmsNormEps } = this.config;
    const e = rmsNorm(inner, embedding(inner, call.tokens, this.#embed), module.embeddingNorm, rmsNormEps);
    const h = rmsNorm(inner, call.previous, module.hiddenNorm, rmsNormEps);
    const x = linear(inner, concat(inner, e, h), module.projection);
    return inner.keep(
      decoderLayer(inner, module.layer, x, { at: call.at, routing: call.routing, use: { kind: "none" } }),
    );
  }
}

/** The cache of all layers: pools of fixed blocks with one block table. */
export interface PagedCache extends Omit<LayerCache, "pool"> {
  readonly pools: readonly Tensor[];
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

function layerWeights(config: ModelConfig, weights: ModelWeights, layer: number): LayerWeights {
  const at = weightsAt(weights, layer);
  return {
    attnNorm: at.vector("attn_norm"),
    attn: attention(config, at),
    ffnNorm: at.vector("ffn_norm"),
    ffn: isDense(config, layer) ? dense(at, "ffn") : mixture(config, at, layer - config.nDenseLayers),
    normEps: config.rmsNormEps,
  };
}

function isDense({ nDenseLayers, nRoutedExperts }: ModelConfig, layer: number): boolean {
  return layer < nDenseLayers || nRoutedExperts === 0;
}

/** The weights of one layer. */
type AtLayer = Omit<ModelWeights, "bytes">;

function weightsAt(weights: ModelWeights, layer: number): AtLayer {
  const nameOf = (name: string): string => `layers.${layer}.${name}`;
  return {
    vector: (name) => weights.vector(nameOf(name)),
    matrix: (name) => weights.matrix(nameOf(name)),
    heads: (name) => weights.heads(nameOf(name)),
  };
}

function attention(config: ModelConfig, at: AtLayer): Attention {
  if (config.attention === "mla") return new Mla(config, mlaWeights(config, at));
  const matrix = (name: string) => weightLinear(at.matrix(`attn.${name}`));
  return new Gqa(config, { wq: matrix("wq"), wk: matrix("wk"), wv: matrix("wv"), wo: matrix("wo") });
}

function mlaWeights(config: ModelConfig, at: AtLayer): ConstructorParameters<typeof Mla>[1] {
  const compressed = config.qLoraRank > 0;
  const matrix = (name: string) => weightLinear(at.matrix(`attn.${name}`));
  const {
    nHeads: heads,
    qkNopeHeadDim: nopeDim,
    qkRopeHeadDim: ropeDim,
    vHeadDim: valueDim,
    kvLoraRank: latentDim,
  } = config;
  return {
    wq: compressed ? null : matrix("wq"),
    wqA: compressed ? matrix("wq_a") : null,
    qNorm: compressed ? at.vector("attn.q_norm") : null,
    wqB: compressed ? matrix("wq_b") : null,
    wkvA: matrix("wkv_a"),
    kvNorm: at.vector("attn.kv_norm"),
    wkvB: perHead(at.heads("attn.wkv_b"), { heads, nopeDim, ropeDim, valueDim, latentDim }),
    wo: matrix("wo"),
  };
}

function dense(at: AtLayer, prefix: string): FeedForward {
  const matrix = (name: string) => weightLinear(at.matrix(`${prefix}.${name}`));
  return swiglu({ w1: matrix("w1"), w2: matrix("w2"), w3: matrix("w3") });
}

function mixture(config: ModelConfig, at: AtLayer, number: number): FeedForward {
  const matrix = (name: string) => at.matrix(`ffn.experts.${name}`);
  return moe(
    config,
    {
      gate: weightLinear(at.matrix("ffn.gate"), "f32"),
      bias: config.topkMethod === "noaux_tc" ? at.vector("ffn.gate.bias") : null,
      experts: weightExperts(matrix("w1"), matrix("w3"), matrix("w2")),
      shared: config.nSharedExperts > 0 ? dense(at, "ffn.shared_experts") : null,
    },
    number,
  );
}

function mtpModule(config: ModelConfig, weights: ModelWeights, layer: number): MtpModule {
  const at = weightsAt(weights, layer);
  return {
    embeddingNorm: at.vector("enorm"),
    hiddenNorm: at.vector("hnorm"),
    projection: at.matrix("eh_proj"),
    layer: layerWeights(config, weights, layer),
    headNorm: at.vector("shared_head.norm"),
  };
}
