/**
 * The model's settings as the `config.json` of a Hugging Face model folder, written for and read from the classes of
 * transformers and those that DeepSeek's repositories bring along. What Hugging Face has no key for stays in Fathom's
 * own file.
 */

import { ConfigError } from "../core/errors.ts";
import { HF_FAMILIES, hfKeyOf, hfTypeOf, type HfFamily, type HfType } from "./hf-families.ts";
import { fp8Format, readQuantization } from "./hf-quantization.ts";
import { readRope, ropeParameters } from "./hf-rope.ts";
import { findParameter, hasParameter, rowOf, toSnakeCase } from "./names.ts";
import { resolveConfig } from "./resolve.ts";
import type { ModelConfig, ModelSettings } from "./rows.ts";
import { parseObject } from "./text.ts";

type Json = Readonly<Record<string, unknown>>;

/** The type of VL2, whose language model stands in a part of its own. */
const VISION_TYPE = "deepseek_vl_v2";
const SIGLIP = "siglip_so400m_patch14_384";

const TORCH_DTYPES = { f32: "float32", f16: "float16", bf16: "bfloat16", fp8: "bfloat16" } as const;

/** Keys that transformers reads as floating point numbers and refuses without a decimal point. */
const FLOAT_KEYS = [
  "routed_scaling_factor",
  "rope_theta",
  "compress_rope_theta",
  "swiglu_limit",
  "factor",
  "mscale",
  "mscale_all_dim",
  "attention_dropout",
  "rms_norm_eps",
  "initializer_range",
  "aux_loss_alpha",
];

interface TokenIds {
  readonly bos: number;
  readonly eos: number;
}

/**
 * The text of `config.json`.
 * @param tokens - from the tokenizer.
 * @param quantization - the `quantization_config`; by default that of the model's `dtype`.
 */
export function hfConfigText(model: ModelConfig, tokens: TokenIds, quantization?: Json): string {
  const whole = new RegExp(`("(?:${FLOAT_KEYS.join("|")})": -?\\d+)(?=[,\\n])`, "g");
  return `${JSON.stringify(toHfConfig(model, tokens, quantization), null, 2).replaceAll(whole, "$1.0")}\n`;
}

/** The object that `config.json` holds. */
export function toHfConfig(
  model: ModelConfig,
  tokens: TokenIds,
  quantization = fp8Format(model),
): Record<string, unknown> {
  if (model.vision === null) return languageConfig(model, tokens, quantization);
  return {
    architectures: ["DeepseekVLV2ForCausalLM"],
    model_type: VISION_TYPE,
    tile_tag: "2D",
    global_view_pos: "head",
    language_config: { ...languageConfig(model, tokens, quantization), ...visionLanguage(model) },
    vision_config: { model_type: "vision", model_name: SIGLIP, layers: 27, patch_size: 14, width: 1152 },
    projector_config: { model_type: "mlp_projector", projector_type: "downsample_mlp_gelu", n_embed: model.dim },
    torch_dtype: TORCH_DTYPES[model.dtype],
  };
}

/** VL2's language models are all of one class, which can also do without latent attention. */
function visionLanguage(model: ModelConfig): Json {
  return {
    architectures: [HF_FAMILIES.deepseek_v2.modelClass],
    model_type: "deepseek_v2",
    use_mla: model.attention === "mla",
    n_group: model.nExpertGroups,
    topk_group: model.nLimitedGroups,
  };
}

function languageConfig(model: ModelConfig, tokens: TokenIds, quantization?: Json): Record<string, unknown> {
  const type = hfTypeOf(model);
  const family: HfFamily = HF_FAMILIES[type];
  return {
    architectures: [family.modelClass],
    model_type: type,
    ...Object.fromEntries(family.settings.map((name) => [hfKeyOf(name), model[name]])),
    ...Object.fromEntries(Object.entries(family.fixed).map(([key, [value]]) => [key, value])),
    ...ofType(model, type),
    attention_dropout: 0,
    bos_token_id: tokens.bos,
    eos_token_id: tokens.eos,
    torch_dtype: TORCH_DTYPES[model.dtype],
    ...(quantization === undefined ? {} : { quantization_config: quantization }),
    use_cache: true,
  };
}

/** What is no plain key, or is one in some types only. */
function ofType(model: ModelConfig, type: HfType): Json {
  if (type === "bert") return { layer_norm_eps: model.rmsNormEps };
  const rope = ropeParameters(model);
  const both = {
    rope_theta: model.ropeTheta,
    rope_scaling: rope,
    rope_parameters: { rope_type: "default", ...rope, rope_theta: model.ropeTheta },
  };
  if (model.attention !== "mla") return both;
  const qLoraRank = model.qLoraRank === 0 ? null : model.qLoraRank;
  return { ...both, q_lora_rank: qLoraRank, num_key_value_heads: model.nHeads, seq_aux: true, ep_size: 1 };
}

/**
 * The model's settings from the text of a `config.json`, ready for `resolveConfig({ model })`. A key that is absent
 * means what it means to the class of its `model_type`. Rope may be given as rope_theta with rope_scaling, or as
 * rope_parameters (transformers 5); the type of the weights as torch_dtype or dtype.
 *
 * @throws FormatError when the text is not a JSON object. @throws ConfigError when it describes another architecture or
 * lacks a key.
 */
export function fromHfConfig(text: string, file = "config.json"): Partial<ModelSettings> {
  const config = parseObject(text, file);
  return inFile(file, () => {
    const isVision = config.model_type === VISION_TYPE;
    const model = isVision ? readVision(config, file) : readLanguage(config, typeOf(config), file);
    resolveConfig({ model });
    return model;
  });
}

/** Errors with the file and the file's own key, not the name that a setting has inside. */
function inFile<T>(file: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof ConfigError) || error.param.startsWith(file)) throw error;
    throw new ConfigError(`${file} ${ownKey(error.param)}`, error.rule, error.value, error.hint);
  }
}

/** @param place - the path of a setting of ours, or already a key of the file. */
function ownKey(place: string): string {
  if (!hasParameter(place)) return place;
  const parameter = findParameter(place);
  const name = toSnakeCase(parameter.name);
  return place.startsWith("model.") || place === name ? (rowOf(parameter).aliases?.hf ?? name) : place;
}

function typeOf(config: Json): HfType {
  const type = config.model_type;
  if (typeof type === "string" && Object.hasOwn(HF_FAMILIES, type)) return type as HfType;
  const known = [...Object.keys(HF_FAMILIES), VISION_TYPE];
  throw new ConfigError("model_type", `must be one of ${known.join(", ")}`, type ?? "none");
}

function readVision(config: Json, file: string): Partial<ModelSettings> {
  const language = part(config, "language_config", file);
  const { model_name: name } = part(config, "vision_config", file);
  if (name !== SIGLIP) throw new ConfigError("vision_config.model_name", `must be ${SIGLIP}`, name ?? "none");
  const outer = { torch_dtype: config.dtype ?? config.torch_dtype };
  const type = language.use_mla === false ? "deepseek" : "deepseek_v2";
  return { ...readLanguage({ ...outer, ...language }, type, file), vision: "siglip_so400m" };
}

function part(config: Json, key: string, file: string): Json {
  const value = config[key];
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  throw new ConfigError(`${file} ${key}`, "must be an object", value ?? "none");
}

function readLanguage(config: Json, type: HfType, file: string): Partial<ModelSettings> {
  const family: HfFamily = HF_FAMILIES[type];
  checkFixed(config, family);
  const given = family.settings.filter((name) => config[hfKeyOf(name)] !== undefined && config[hfKeyOf(name)] !== null);
  const settings: Record<string, unknown> = {
    ...family.implied,
    ...Object.fromEntries(given.map((name) => [name, config[hfKeyOf(name)]])),
    ...readNulls(config),
    ...(type === "bert" ? readEncoder(config) : readRope(config, type === "deepseek_v4")),
    ...readDtype(config),
  };
  for (const name of family.required) {
    if (settings[name] !== undefined) continue;
    const cure = "take the config.json of the checkpoint itself";
    throw new ConfigError(`${file} ${hfKeyOf(name)}`, "must be given", undefined, cure);
  }
  return withoutExperts(settings);
}

function checkFixed(config: Json, { fixed }: HfFamily): void {
  for (const [key, allowed] of Object.entries(fixed)) {
    const value = config[key];
    if (value === undefined || allowed.includes(value)) continue;
    throw new ConfigError(key, `must be ${JSON.stringify(allowed[0])} in a model of this type`, value);
  }
}

/** Where null is a value: no compression of queries, no shared experts, no routed experts at all. */
function readNulls(config: Json): Partial<ModelSettings> {
  const isNull = (key: string): boolean => config[key] === null;
  return {
    ...(typeof config.q_lora_rank === "number" ? { qLoraRank: config.q_lora_rank } : {}),
    ...(isNull("q_lora_rank") ? { qLoraRank: 0 } : {}),
    ...(isNull("n_shared_experts") ? { nSharedExperts: 0 } : {}),
    ...(isNull("n_routed_experts") ? { nRoutedExperts: 0, nSharedExperts: 0, nActivatedExperts: 0 } : {}),
  };
}

function readEncoder(config: Json): Partial<ModelSettings> {
  return { rmsNormEps: (config.layer_norm_eps ?? 1e-12) as number };
}

/** Without experts every layer is dense, whatever first_k_dense_replace says. */
function withoutExperts(settings: Partial<ModelSettings>): Partial<ModelSettings> {
  return settings.nRoutedExperts === 0 ? { ...settings, nDenseLayers: settings.nLayers! } : settings;
}

function readDtype(config: Json): Partial<ModelSettings> {
  const dtype = config.dtype ?? config.torch_dtype;
  const plain = dtype === undefined || dtype === null ? {} : { dtype: dtype as "bf16" };
  const quantization = config.quantization_config as Json | null | undefined;
  return quantization === undefined || quantization === null ? plain : { ...plain, ...readQuantization(quantization) };
}
