/** Rotary positions in `config.json`: rope_theta with rope_scaling, or rope_parameters since transformers 5. */

import { ConfigError } from "../core/errors.ts";
import { MODEL_ROWS } from "./model-rows.ts";
import type { ModelConfig, ModelSettings } from "./rows.ts";

type Json = Readonly<Record<string, unknown>>;

/** The value of rope_scaling, null without YaRN. */
export function ropeParameters(model: ModelConfig): Json | null {
  if (model.ropeFactor === 1) return null;
  return {
    type: "yarn",
    rope_type: "yarn",
    factor: model.ropeFactor,
    original_max_position_embeddings: model.originalSeqLen,
    beta_fast: model.betaFast,
    beta_slow: model.betaSlow,
    ...(model.mscale === 0 ? {} : { mscale: model.mscale, mscale_all_dim: model.mscaleAllDim }),
  };
}

/** @param plainScores - of V4: YaRN changes frequencies only, neither scores nor lengths of the rotated vectors. */
export function readRope(config: Json, plainScores: boolean): Partial<ModelSettings> {
  const rope = (config.rope_parameters ?? config.rope_scaling ?? {}) as Json;
  const theta = (rope.rope_theta ?? config.rope_theta ?? MODEL_ROWS.ropeTheta.default) as number;
  const type = rope.rope_type ?? rope.type ?? "default";
  if (type === "default") return { ropeTheta: theta, ropeFactor: 1 };
  if (type !== "yarn") throw new ConfigError("rope_scaling.rope_type", "must be yarn or default", type);
  if (rope.factor === undefined || rope.factor === null) {
    throw new ConfigError("rope_scaling.factor", "must be given with yarn", rope.factor ?? "none");
  }
  if (rope.attention_factor !== undefined && rope.attention_factor !== null) {
    const cure = "give mscale and mscale_all_dim";
    throw new ConfigError("rope_scaling.attention_factor", "must be absent", rope.attention_factor, cure);
  }
  return {
    ropeTheta: theta,
    ropeFactor: rope.factor as number,
    originalSeqLen: (rope.original_max_position_embeddings ?? config.max_position_embeddings) as number,
    betaFast: (rope.beta_fast ?? MODEL_ROWS.betaFast.default) as number,
    betaSlow: (rope.beta_slow ?? MODEL_ROWS.betaSlow.default) as number,
    ...(plainScores ? { mscale: 0, mscaleAllDim: 0 } : readMscale(rope)),
  };
}

/** Without both keys, transformers scales cos and sin by f(1) and the softmax by f(mscale_all_dim or 0)². */
function readMscale(rope: Json): Partial<ModelSettings> {
  if (Boolean(rope.mscale) === Boolean(rope.mscale_all_dim)) {
    return rope.mscale
      ? { mscale: rope.mscale as number, mscaleAllDim: rope.mscale_all_dim as number }
      : { mscale: 1, mscaleAllDim: 0 };
  }
  if (!rope.mscale_all_dim && rope.mscale === 1) return { mscale: 1, mscaleAllDim: 0 };
  throw new ConfigError(
    "rope_scaling.mscale_all_dim",
    "must be given together with mscale",
    rope.mscale_all_dim ?? "none",
  );
}
