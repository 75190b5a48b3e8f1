/**
 * Which layers each pipeline rank holds. Layers are dealt out evenly; where they do not come out even, the last chunk
 * gets fewer first (it has head, loss and MTP), then the first (it has the embedding), then chunks from the end. That
 * gives the layouts that Megatron-Bridge writes for V3: 16·3+13, 8·7+5, 4·15+1, and 1, 2·30, 0 on 32 chunks.
 */

import type { Layout } from "./layout.ts";
import { microBatchesInFlight } from "./schedules.ts";
import { activeElements, type ModelShape } from "./shape.ts";

/** What one pipeline rank holds. Arrays run over the kinds of the shape. */
export interface Stage {
  readonly index: number;
  /** Layers held. */
  readonly held: readonly number[];
  /** Layers that one micro-batch passes through here. */
  readonly worked: readonly number[];
  /** Layers whose activations are held, micro-batches in flight counted. */
  readonly live: readonly number[];
  /** Copies of the embedding and of the head here, and their micro-batches in flight. */
  readonly front: number;
  readonly back: number;
  readonly frontLive: number;
  readonly backLive: number;
  /** Share of the micro-batches that pass the embedding and the head here. */
  readonly frontWorked: number;
  readonly backWorked: number;
}

type Place = Pick<Layout, "schedule" | "pp" | "vp">;

/** Layers of each chunk, in order. */
export function chunkSizes(shape: ModelShape, chunks: number): number[] {
  const most = Math.ceil(shape.nLayers / chunks);
  const sizes = Array.from({ length: chunks }, () => most);
  let surplus = most * chunks - shape.nLayers;
  const fromLast = Math.min(surplus, tailLayers(shape), most);
  sizes[chunks - 1]! -= fromLast;
  surplus -= fromLast;
  for (let i = 0; surplus > 0; i++) {
    const chunk = i === 0 ? 0 : chunks - 1 - (i % chunks);
    if (sizes[chunk]! <= 1) continue;
    sizes[chunk]!--;
    surplus--;
  }
  return sizes;
}

/** Head, loss and MTP in units of the last layer's work, rounded up. */
function tailLayers({ kinds, layers, nMtpLayers, vocabSize, dim }: ModelShape): number {
  const layer = activeElements(kinds[layers.at(-1)!]!.parameters);
  return Math.ceil(nMtpLayers + (vocabSize * dim * (1 + nMtpLayers)) / layer);
}

/** A run of layers at one place of the pipeline. */
interface Chunk {
  /** Name and kind of each layer, MTP layers with the last chunk. */
  readonly layers: readonly { readonly name: string; readonly kind: number }[];
  /** How many of each kind. */
  readonly counts: readonly number[];
  readonly first: boolean;
  readonly last: boolean;
}

function chunksOf(shape: ModelShape, count: number): Chunk[] {
  const mtp = shape.kinds.findIndex(({ name }) => name === "mtp");
  let at = 0;
  return chunkSizes(shape, count).map((size, i) => {
    const last = i === count - 1;
    const mtpKinds = last ? Array.from({ length: shape.nMtpLayers }, () => mtp) : [];
    const kinds = [...shape.layers.slice(at, at + size), ...mtpKinds];
    const layers = kinds.map((kind, n) => ({ name: `layers.${at + n}`, kind }));
    at += size;
    const counts = shape.kinds.map((_, kind) => kinds.filter((k) => k === kind).length);
    return { layers, counts, first: i === 0, last };
  });
}

/** A chunk on a rank, with its micro-batches in flight and the share of the micro-batches that pass it. */
interface Part {
  readonly chunk: Chunk;
  readonly inFlight: number;
  readonly share: number;
}

/** What each pipeline rank holds, works on and keeps. */
export function stagesOf(shape: ModelShape, place: Place, micros: number): Stage[] {
  return Array.from({ length: place.pp }, (_, index) => stageOf(index, partsOf(shape, place, index, micros)));
}

/** The chunks of one pipeline rank. */
export function partsOf(shape: ModelShape, { schedule, pp, vp }: Place, index: number, micros: number): Part[] {
  const inFlight = (stage: number, stages: number): number => microBatchesInFlight(schedule, stage, stages, vp, micros);
  if (schedule === "dualpipe") {
    const chunks = chunksOf(shape, pp);
    return [index, pp - 1 - index].map((at) => ({ chunk: chunks[at]!, inFlight: inFlight(at, pp), share: 1 / 2 }));
  }
  if (schedule === "dualpipev") {
    const chunks = chunksOf(shape, 2 * pp);
    return [index, 2 * pp - 1 - index].map((at) => ({
      chunk: chunks[at]!,
      inFlight: inFlight(at, 2 * pp),
      share: 1,
    }));
  }
  const chunks = chunksOf(shape, pp * vp);
  return Array.from({ length: vp }, (_, v) => ({
    chunk: chunks[index + v * pp]!,
    inFlight: inFlight(index, pp),
    share: 1,
  }));
}

function stageOf(index: number, parts: readonly Part[]): Stage {
  const over = (weight: (part: Part) => number, of: (chunk: Chunk) => number): number =>
    parts.reduce((sum, part) => sum + weight(part) * of(part.chunk), 0);
  const kinds = parts[0]!.chunk.counts.map((_, kind) => kind);
  const layers = (weight: (part: Part) => number): number[] =>
    kinds.map((kind) => over(weight, ({ counts }) => counts[kind]!));
  const one = (): number => 1;
  const inFlight = (part: Part): number => part.inFlight;
  const share = (part: Part): number => part.share;
  const first = (chunk: Chunk): number => Number(chunk.first);
  const last = (chunk: Chunk): number => Number(chunk.last);
  return {
    index,
    held: layers(one),
    worked: layers(share),
    live: layers(inFlight),
    front: over(one, first),
    back: over(one, last),
    frontLive: over(inFlight, first),
    backLive: over(inFlight, last),
    frontWorked: over(share, first),
    backWorked: over(share, last),
  };
}

/** The stages that no other one exceeds in everything: only these can be the fullest or the slowest. */
export function leadingStages(stages: readonly Stage[]): Stage[] {
  const leading: Stage[] = [];
  for (const stage of stages) {
    if (!leading.some((other) => covers(other, stage))) leading.push(stage);
  }
  return leading;
}

function covers(a: Stage, b: Stage): boolean {
  const [as, bs] = [numbersOf(a), numbersOf(b)];
  return as.every((n, i) => n >= bs[i]!);
}

function numbersOf(stage: Stage): number[] {
  const { held, worked, live, front, back, frontLive, backLive, frontWorked, backWorked } = stage;
  return [...held, ...worked, ...live, front, back, frontLive, backLive, frontWorked, backWorked];
}
