/** One decoder layer: x + attention(norm x), then x + ffn(norm x). */

import { add, rmsNorm, type Parameter, type Scope, type Tensor } from "../tensor/index.ts";
import type { Attention, CacheSlots, LayerCache, Sequences } from "./attention.ts";
import type { FeedForward, RoutingSink } from "./ffn.ts";

export interface LayerWeights {
  readonly attnNorm: Parameter;
  readonly attn: Attention;
  readonly ffnNorm: Parameter;
  readonly ffn: FeedForward;
  readonly normEps: number;
}

/** How a layer's attention meets the cache: not at all, filling it from a prompt, or one token per sequence. */
export type CacheUse =
  | { readonly kind: "none" }
  | { readonly kind: "prefill"; readonly cache: LayerCache & Pick<CacheSlots, "slots"> }
  | { readonly kind: "decode"; readonly cache: LayerCache & CacheSlots };

/** x [N, D] → [N, D]. */
export function decoderLayer(
  scope: Scope,
  layer: LayerWeights,
  x_ND: Tensor,
  call: { at: Sequences; routing: RoutingSink; use: CacheUse },
): Tensor {
  using inner = scope.child();
  const h = add(inner, x_ND, attend(inner, layer, x_ND, call));
  const ffn = layer.ffn.apply(inner, rmsNorm(inner, h, layer.ffnNorm, layer.normEps), call.routing);
  return inner.keep(add(inner, h, ffn));
}

function attend(scope: Scope, layer: LayerWeights, x_ND: Tensor, call: { at: Sequences; use: CacheUse }): Tensor {
  using inner = scope.child();
  const normed = rmsNorm(inner, x_ND, layer.attnNorm, layer.normEps);
  const { at, use } = call;
  switch (use.kind) {
    case "none":
      return inner.keep(layer.attn.prefill(inner, normed, at));
    case "prefill":
      return inner.keep(layer.attn.prefill(inner, normed, at, use.cache));
    case "decode":
      return inner.keep(layer.attn.decode(inner, normed, at, use.cache));
    default:
      return use satisfies never;
  }
}
