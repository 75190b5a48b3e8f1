/**
 * The model's settings as the `config.json` of a Hugging Face model folder, written for and read from the classes
 * `deepseek_v2` and `deepseek_v3` of transformers. Plain keys come from the rows' aliases; rope, dtype and what the
 * classes imply are here. What Hugging Face has no key for stays in Fathom's own file.
 */

import { ConfigError } from "../core/errors.ts";
import { MODEL_ROWS } from "./model-rows.ts";
import type { Row } from "./row.ts";
import type { ModelConfig, ModelSettings } from "./rows.ts";
import { parseObject } from "./text.ts";

type Json = Readonly<Record<string, unknown>>;

/** Settings with a plain key of their own, as [name, key]; the dtype's key is not one, its values differ. */
const PLAIN_KEYS: readonly (readonly [name: string, key: string])[] = Object.entries<Row>(MODEL_ROWS)
  .map(([name, row]) => [name, row.aliases?.hf ?? "."] as const)
  .filter(([name, key]) => !key.includes(".") && name !== "dtype" && name !== "ropeTheta");

/** Keys without which a model cannot be known; the classes' own defaults for them describe other models. */
const REQUIRED: readonly (keyof ModelSettings)[] = [
  "vocabSize",
  "dim",
  "interDim",
  "moeInterDim",
  "nLayers",
  "nDenseLayers",
  "nHeads",
  "nRoutedExperts",
  "nActivatedExperts",
  "kvLoraRank",
  "qkNopeHeadDim",
  "qkRopeHeadDim",
  "vHeadDim",
];

const IMPLIED_BY_CLASS: Readonly<Record<string, Partial<ModelSettings>>> = {
  deepseek_v2: {
    scoreFunc: "softmax",
    topkMethod: "greedy",
    normTopkProb: false,
    nSharedExperts: 2,
  },
  deepseek_v3: {
    scoreFunc: "sigmoid",
    topkMethod: "noaux_tc",
    normTopkProb: true,
    nSharedExperts: 1,
  },
};

/** Keys whose other values name an architecture that this is not. */
const FIXED: Readonly<Record<string, readonly unknown[]>> = {
  hidden_act: ["silu"],
  attention_bias: [false],
  moe_layer_freq: [1],
};

const TORCH_DTYPES = { f32: "float32", bf16: "bfloat16", fp8: "bfloat16" } as const;

/** Keys that transformers reads as floating point numbers and refuses without a decimal point. */
const FLOAT_KEYS = [
  "routed_scaling_factor",
  "rope_theta",
  "factor",
  "mscale",
  "mscale_all_dim",
  "attention_dropout",
  "rms_norm_eps",
  "initializer_range",
  "aux_loss_alpha",
];

/** The text of `config.json`. Token ids come from the tokenizer. */
export function hfConfigText(model: ModelConfig, tokens: { bos: number; eos: number }): string {
  const whole = new RegExp(`("(?:${FLOAT_KEYS.join("|")})": -?\\d+)(?=[,\\n])`, "g");
  return `${JSON.stringify(toHfConfig(model, tokens), null, 2).replaceAll(whole, "$1.0")}\n`;
}

/** The object that `config.json` holds. */
export function toHfConfig(model: ModelConfig, tokens: { bos: number; eos: number }): Record<string, unknown> {
  const isV3 = model.topkMethod === "noaux_tc";
  const rope = ropeParameters(model);
  const settings = model as unknown as Json;
  return {
    architectures: [isV3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM"],
    model_type: isV3 ? "deepseek_v3" : "deepseek_v2",
    ...Object.fromEntries(PLAIN_KEYS.map(([name, key]) => [key, settings[name]])),
    q_lora_rank: model.qLoraRank === 0 ? null : model.qLoraRank,
    num_key_value_heads: model.nHeads,
    hidden_act: "silu",
    attention_bias: false,
    attention_dropout: 0,
    moe_layer_freq: 1,
    seq_aux: true,
    ep_size: 1,
    rope_theta: model.ropeTheta,
    rope_scaling: rope,
    rope_parameters: { rope_type: "default", ...rope, rope_theta: model.ropeTheta },
    bos_token_id: tokens.bos,
    eos_token_id: tokens.eos,
    torch_dtype: TORCH_DTYPES[model.dtype],
    ...(model.dtype === "fp8" ? { quantization_config: fp8Format(model) } : {}),
    use_cache: true,
  };
}

function fp8Format(model: ModelConfig): Json {
  return {
    quant_method: "fp8",
    fmt: "e4m3",
    activation_scheme: "dynamic",
    weight_block_size: [128, 128],
    ...(model.scaleFmt === null ? {} : { scale_fmt: model.scaleFmt }),
  };
}

function ropeParameters(model: ModelConfig): Json | null {
  if (model.ropeFactor === 1) return null;
  return {
    type: "yarn",
    rope_type: "yarn",
    factor: model.ropeFactor,
    original_max_position_embeddings: model.originalSeqLen,
    beta_fast: model.betaFast,
    beta_slow: model.betaSlow,
    mscale: model.mscale,
    mscale_all_dim: model.mscaleAllDim,
  };
}

/**
 * The model's settings from the text of a `config.json`, ready for `resolveConfig({ model })`. Rope may be given as
 * rope_theta with rope_scaling, or as rope_parameters (transformers 5).
 *
 * @throws FormatError when the text is not a JSON object. @throws ConfigError when it describes another architecture or
 * lacks a key.
 */
export function fromHfConfig(text: string, file = "config.json"): Partial<ModelSettings> {
  const config = parseObject(text, file);
  const implied = checkArchitecture(config);
  const plain = PLAIN_KEYS.filter(([, key]) => config[key] !== undefined && config[key] !== null);
  const settings: Record<string, unknown> = {
    ...implied,
    ...Object.fromEntries(plain.map(([name, key]) => [name, config[key]])),
    qLoraRank: config.q_lora_rank ?? 0,
    ...readRope(config),
    ...readDtype(config),
  };
  for (const name of REQUIRED) {
    if (settings[name] !== undefined) continue;
    const hf = PLAIN_KEYS.find(([plainName]) => plainName === name)![1];
    throw new ConfigError(`${file} ${hf}`, "must be given", undefined, "take the config.json of the checkpoint itself");
  }
  return settings;
}

function checkArchitecture(config: Json): Partial<ModelSettings> {
  const implied = IMPLIED_BY_CLASS[String(config.model_type)];
  if (implied === undefined) {
    throw new ConfigError("model_type", "must be deepseek_v2 or deepseek_v3", config.model_type ?? "none");
  }
  for (const [key, allowed] of Object.entries(FIXED)) {
    const value = config[key];
    if (value === undefined || allowed.includes(value)) continue;
    throw new ConfigError(key, `must be ${JSON.stringify(allowed[0])} in a DeepSeek model`, value);
  }
  return implied;
}

function readRope(config: Json): Partial<ModelSettings> {
  const rope = (config.rope_parameters ?? config.rope_scaling ?? {}) as Json;
  const theta = (rope.rope_theta ?? config.rope_theta ?? MODEL_ROWS.ropeTheta.default) as number;
  const type = rope.rope_type ?? rope.type ?? "default";
  if (type === "default") return { ropeTheta: theta, ropeFactor: 1 };
  if (type !== "yarn") {
    throw new ConfigError("rope_scaling.rope_type", "must be yarn or default", type);
  }
  if (rope.factor === undefined || rope.factor === null) {
    throw new ConfigError("rope_scaling.factor", "must be given with yarn", rope.factor ?? "none");
  }
  if (rope.attention_factor !== undefined && rope.attention_factor !== null) {
    throw new ConfigError(
      "rope_scaling.attention_factor",
      "must be absent",
      rope.attention_factor,
      "give mscale and mscale_all_dim",
    );
  }
  return {
    ropeTheta: theta,
    ropeFactor: rope.factor as number,
    originalSeqLen: (rope.original_max_position_embeddings ?? config.max_position_embeddings) as number,
    betaFast: (rope.beta_fast ?? MODEL_ROWS.betaFast.default) as number,
    betaSlow: (rope.beta_slow ?? MODEL_ROWS.betaSlow.default) as number,
    ...readMscale(rope),
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

function readDtype(config: Json): Partial<ModelSettings> {
  const quantization = config.quantization_config as Json | null | undefined;
  if (quantization?.quant_method === "fp8") {
    return { dtype: "fp8", scaleFmt: (quantization.scale_fmt ?? null) as "ue8m0" | null };
  }
  const dtype = config.dtype ?? config.torch_dtype;
  return dtype === undefined ? {} : { dtype: dtype as "bf16" };
}
