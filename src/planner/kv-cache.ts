/**
 * The KV cache of one token. MLA caches the latent and the rotary key (absorbed), or each head's keys and values
 * (expanded, as engines without an MLA kernel do); other attentions cache the keys and values of their KV heads.
 *
 * **Source:** DeepSeek-V2 report 2.1, table 1.
 */

import { invariant } from "../core/errors.ts";
import { layerCounts, type AttentionShape, type ModelShape } from "./shape.ts";

/** int8 has a float32 scale for each token and layer; fp8 one scale for the whole cache. */
export const KV_FORMATS = {
  bf16: { bytes: 2, scaleBytes: 0 },
  fp8: { bytes: 1, scaleBytes: 0 },
  int8: { bytes: 1, scaleBytes: 4 },
} as const;

export type KvFormat = keyof typeof KV_FORMATS;

/** The indexer's key in fp8 with a float32 scale, whatever the cache is in. **Source:** vLLM, sparse MLA. */
const INDEX_SCALE_BYTES = 4;

/** Bytes that one layer's indexer caches for one token; 0 without an indexer. */
function indexBytes(attention: AttentionShape): number {
  const indexer = attention.kind === "mla" ? attention.indexer : undefined;
  return indexer === undefined ? 0 : indexer.headDim + INDEX_SCALE_BYTES;
}

/** The same of all main layers. */
export function indexBytesPerToken(shape: ModelShape): number {
  const counts = layerCounts(shape);
  return shape.kinds
    .filter(({ name }) => name !== "mtp")
    .reduce((sum, { attention }, i) => sum + counts[i]! * indexBytes(attention), 0);
}

/** Elements that one layer caches for one token. */
export function cachedElements(attention: AttentionShape, expanded = false): number {
  if (attention.kind !== "mla") return 2 * attention.nKvHeads * attention.headDim;
  const { nHeads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = attention;
  return expanded ? nHeads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim) : kvLoraRank + qkRopeHeadDim;
}

/**
 * Bytes that all main layers cache for one token, indexers included.
 *
 * @example kvBytesPerToken(modelShape(v3)) // 70272
 */
export function kvBytesPerToken(shape: ModelShape, format: KvFormat = "bf16", expanded = false): number {
  const { bytes, scaleBytes } = KV_FORMATS[format];
  const counts = layerCounts(shape);
  return shape.kinds
    .filter(({ name }) => name !== "mtp")
    .reduce((sum, { attention }, i) => {
      const cached = cachedElements(attention, expanded) * bytes + scaleBytes + indexBytes(attention);
      return sum + counts[i]! * cached;
    }, 0);
}

/** Whether tensor-parallel ranks each hold the whole cache: the latent has no heads to deal out. */
export function isLatentCache({ kinds }: ModelShape, expanded: boolean): boolean {
  const first = kinds[0];
  invariant(first !== undefined, "a model has layers");
  return first.attention.kind === "mla" && !expanded;
}
