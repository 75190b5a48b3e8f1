/** How far Fathom's distributions of one GGUF file are from llama.cpp's, on tokens given to both. */

import { openScorer } from "../../src/evaluate/node.ts";
import { openGguf } from "../../src/formats/node.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";
import { llamaDistributions } from "./llama-peer.ts";

export interface EngineDivergence {
  /** Scored ones: all but the last of each sequence. */
  readonly tokens: number;
  /** KL(llama.cpp‖Fathom) in nats. */
  readonly meanKl: number;
  readonly maxKl: number;
  /** Share of the tokens with the same likeliest id. */
  readonly sameTop: number;
  /** Mean entropy of llama.cpp's distributions in nats. */
  readonly entropy: number;
  /** Of the token that follows. */
  readonly perplexity: { readonly fathom: number; readonly llama: number };
}

export async function engineDivergence(
  modules: string,
  file: string,
  sequences: readonly (readonly number[])[],
): Promise<EngineDivergence> {
  using backend = createNativeBackend();
  using scorer = await openScorer(file, backend);
  const vocabulary = scorer.config.vocabSize;
  const sums = { kl: 0, maxKl: 0, same: 0, entropy: 0, ourLoss: 0, theirLoss: 0, tokens: 0 };
  let n = 0;
  for await (const theirs of llamaDistributions(modules, file, sequences, vocabulary)) {
    const sequence = sequences[n++]!;
    const targets = Int32Array.from(sequence.slice(1));
    let row = 0;
    for await (const logits of scorer.logits({ tokens: Int32Array.from(sequence.slice(0, -1)), from: 0, targets })) {
      for (let at = 0; at < logits.length; at += vocabulary, row++) {
        const p = theirs.subarray(row * vocabulary, (row + 1) * vocabulary);
        addRow(sums, logits.subarray(at, at + vocabulary), p, targets[row]!);
      }
    }
  }
  const { tokens } = sums;
  return {
    tokens,
    meanKl: sums.kl / tokens,
    maxKl: sums.maxKl,
    sameTop: sums.same / tokens,
    entropy: sums.entropy / tokens,
    perplexity: { fathom: Math.exp(sums.ourLoss / tokens), llama: Math.exp(sums.theirLoss / tokens) },
  };
}

type Sums = Record<"kl" | "maxKl" | "same" | "entropy" | "ourLoss" | "theirLoss" | "tokens", number>;

function addRow(sums: Sums, logits: Float32Array, p: Float32Array, target: number): void {
  let [ours, theirs] = [0, 0];
  for (let i = 1; i < p.length; i++) {
    if (logits[i]! > logits[ours]!) ours = i;
    if (p[i]! > p[theirs]!) theirs = i;
  }
  let power = 0;
  for (const logit of logits) power += Math.exp(logit - logits[ours]!);
  const norm = logits[ours]! + Math.log(power);
  let [kl, entropy] = [0, 0];
  for (let i = 0; i < p.length; i++) {
    if (p[i] === 0) continue;
    const information = -p[i]! * Math.log(p[i]!);
    entropy += information;
    kl += p[i]! * (norm - logits[i]!) - information;
  }
  sums.kl += kl;
  sums.maxKl = Math.max(sums.maxKl, kl);
  sums.same += Number(ours === theirs);
  sums.entropy += entropy;
  sums.ourLoss += norm - logits[target]!;
  sums.theirLoss -= Math.log(p[target]!);
  sums.tokens++;
}

/** As a result file has them. */
export function divergenceFields({ perplexity, ...figures }: EngineDivergence): Readonly<Record<string, number>> {
  return {
    tokens: figures.tokens,
    mean_kl: figures.meanKl,
    max_kl: figures.maxKl,
    same_top1: figures.sameTop,
    entropy: figures.entropy,
    perplexity: perplexity.fathom,
    perplexity_llama: perplexity.llama,
  };
}

/** Bytes of a file's tensors by their type, largest first. */
export async function bytesByType(file: string): Promise<[type: string, bytes: number][]> {
  const reader = await openGguf(file);
  await reader.close();
  const sums = new Map<string, number>();
  for (const { dtype, bytes } of reader.tensors.values()) sums.set(dtype, (sums.get(dtype) ?? 0) + bytes);
  return [...sums].toSorted(([, a], [, b]) => b - a);
}
