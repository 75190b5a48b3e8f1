/**
 * The whole model in float64 on plain arrays: slow, short, and without anything of the tensor and kernel rooms but the
 * parameters' values. What it computes is written from the reports.
 * **Source:** DeepSeek-V3 report 2.1 and 2.2, eq. 21–25.
 */

import type { ModelConfig } from "../../src/config/index.ts";
import type { ParameterSet } from "../../src/model/index.ts";
import type { PackedDocuments } from "../helpers/random-model.ts";
import { multiply, plus, rmsNorm, rowOf, softmax, type Vector } from "./arrays.ts";
import { attention } from "./attention.ts";
import { NO_FAULTS, type Faults } from "./faults.ts";
import { balanceLoss, denseFeedForward, mixture, route, type Routing } from "./feed-forward.ts";
import { readWeights } from "./weights.ts";

export interface ReferenceResult {
  /** [N][V] of the main head. */
  readonly logits: number[][];
  /** Cross-entropy by row, 0 where there is no target. */
  readonly main: number[];
  readonly mtp: number[][];
  /** Of each mixture, those of the prediction modules last. */
  readonly balance: number[];
}

/** @param balance row starts of the segments over which load is evened, and the loss's weight. */
export function referenceForward(
  config: ModelConfig,
  parameters: ParameterSet,
  batch: PackedDocuments,
  balance: { segments: readonly number[]; alpha: number },
  faults: Faults = NO_FAULTS,
): ReferenceResult {
  const { nLayers, nDenseLayers, nRoutedExperts, rmsNormEps: eps, mtpHidden, tieEmbeddings } = config;
  const root = readWeights(parameters);
  const head = root.matrix(tieEmbeddings ? "embed" : "head");
  const embed = (tokens: readonly number[]): number[][] => tokens.map((token) => rowOf(root.matrix("embed"), token));
  const normAll = (rows: readonly Vector[], weight: Vector): number[][] => rows.map((row) => rmsNorm(row, weight, eps));
  const balanceLosses: number[] = [];

  const layer = (number: number, x: readonly Vector[]): number[][] => {
    const at = readWeights(parameters, `layers.${number}.`);
    const attended = attention(config, at, normAll(x, at.vector("attn_norm")), {
      positions: batch.positions,
      faults,
    });
    const h = x.map((row, i) => plus(row, attended[i]!));
    const normed = normAll(h, at.vector("ffn_norm"));
    if (number < nDenseLayers || nRoutedExperts === 0)
      return h.map((row, i) => plus(row, denseFeedForward(at, normed[i]!)));
    const routings: Routing[] = normed.map((row) => route(config, at, row, faults));
    balanceLosses.push(balanceLoss(config, routings, balance.segments, balance.alpha));
    return h.map((row, i) => plus(row, mixture(config, at, normed[i]!, routings[i]!)));
  };

  let x = embed(batch.tokens);
  for (let n = 0; n < nLayers; n++) x = layer(n, x);
  const normed = normAll(x, root.vector("norm"));
  const logits = normed.map((row) => multiply(head, row));
  const main = crossEntropy(logits, batch.targets);

  let previous = mtpHidden === "post_norm" ? normed : x;
  const mtp = batch.mtp.map(({ tokens, targets }, k) => {
    const at = readWeights(parameters, `layers.${nLayers + k}.`);
    const e = normAll(embed(tokens), at.vector("enorm"));
    const h = normAll(previous, at.vector("hnorm"));
    const joined = e.map((row, i) => multiply(at.matrix("eh_proj"), [...row, ...h[i]!]));
    const hidden = layer(nLayers + k, joined);
    const ahead = normAll(hidden, at.vector("shared_head.norm"));
    previous = mtpHidden === "post_norm" ? ahead : hidden;
    return crossEntropy(
      ahead.map((row) => multiply(head, row)),
      targets,
    );
  });
  return { logits, main, mtp, balance: balanceLosses };
}

function crossEntropy(logits: readonly Vector[], targets: readonly number[]): number[] {
  return logits.map((row, i) => (targets[i]! < 0 ? 0 : -Math.log(softmax(row)[targets[i]!]!)));
}
