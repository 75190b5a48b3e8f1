/** `quantization_config` of a Hugging Face model folder: how fp8 and int8 weights stand in it. */

import { ConfigError } from "../core/errors.ts";
import { FP8_BLOCK } from "../core/index.ts";
import type { ModelConfig, ModelSettings } from "./rows.ts";

type Json = Readonly<Record<string, unknown>>;

const BLOCK = [FP8_BLOCK, FP8_BLOCK];

/** For a model whose `dtype` is fp8; undefined for all others. **Source:** config.json of DeepSeek-V3. */
export function fp8Format({ dtype, scaleFmt }: ModelConfig): Json | undefined {
  if (dtype !== "fp8") return undefined;
  return {
    quant_method: "fp8",
    fmt: "e4m3",
    activation_scheme: "dynamic",
    weight_block_size: BLOCK,
    ...(scaleFmt === null ? {} : { scale_fmt: scaleFmt }),
  };
}

/** Matrices that stay as they are: head, routers, MTP projections and the weights of an indexer's heads. */
const INT8_IGNORED = ["lm_head", "re:.*mlp\\.gate$", "re:.*eh_proj$", "re:.*weights_proj$"];
/** What int8 weights must be, and are where a key is absent. */
const INT8_WEIGHTS = { num_bits: 8, type: "int", symmetric: true, dynamic: false } as const;
/** Which values share a scale: those of a row, or of a group of columns of a row. */
const INT8_STRATEGIES: ReadonlySet<unknown> = new Set(["channel", "group"]);
const INT8_METHOD = "compressed-tensors";
const INT8_FORMAT = "int-quantized";

/**
 * Signed bytes with a scale for each row, in the spelling of compressed-tensors.
 * **Source:** vllm-project/compressed-tensors quant_config.py, quant_args.py.
 */
export function int8Format(): Json {
  const weights = { ...INT8_WEIGHTS, strategy: "channel" };
  const group = { targets: ["Linear"], weights, input_activations: null, output_activations: null };
  return {
    quant_method: INT8_METHOD,
    format: INT8_FORMAT,
    quantization_status: "compressed",
    // Without the format of its own a group of weights alone is taken for packed integers.
    config_groups: { group_0: { ...group, format: INT8_FORMAT } },
    ignore: INT8_IGNORED,
    kv_cache_scheme: null,
  };
}

/**
 * What a `quantization_config` says of the weights: nothing for int8, whose tensors speak for themselves and beside which
 * `torch_dtype` is that of all others.
 * @throws ConfigError for another quantisation.
 */
export function readQuantization(quantization: Json): Partial<ModelSettings> {
  const { quant_method: method } = quantization;
  if (method === "fp8") return readFp8(quantization);
  if (method === INT8_METHOD) return readInt8(quantization);
  throw refusal("quant_method", `must be fp8, or ${INT8_METHOD} with int8 weights`, method);
}

function readFp8({ weight_block_size: block, scale_fmt: scaleFmt }: Json): Partial<ModelSettings> {
  if (block !== undefined && JSON.stringify(block) !== JSON.stringify(BLOCK)) {
    throw refusal("weight_block_size", "must be [128, 128]", block);
  }
  return { dtype: "fp8", scaleFmt: (scaleFmt ?? null) as "ue8m0" | null };
}

function readInt8({ format, config_groups: groups }: Json): Partial<ModelSettings> {
  if (format !== INT8_FORMAT) throw refusal("format", `must be ${INT8_FORMAT}`, format);
  const all = Object.entries(Object(groups) as Record<string, Json>);
  if (all.length === 0) throw refusal("config_groups", "must say how weights are quantised", groups);
  for (const [name, { weights, input_activations: activations = null }] of all) {
    const place = `config_groups.${name}`;
    if (typeof weights !== "object" || weights === null) {
      throw refusal(`${place}.weights`, "must say how weights are quantised", weights);
    }
    checkInt8Weights(weights as Json, `${place}.weights`);
    if (activations === null) continue;
    throw refusal(`${place}.input_activations`, "must be null: only weights are int8 here", activations);
  }
  return {};
}

function checkInt8Weights(weights: Json, place: string): void {
  for (const [key, due] of Object.entries(INT8_WEIGHTS)) {
    const value = weights[key] ?? due;
    if (value !== due) throw refusal(`${place}.${key}`, `must be ${JSON.stringify(due)}`, value);
  }
  const strategy = strategyOf(weights);
  if (!INT8_STRATEGIES.has(strategy)) {
    const rule = "must be channel or group: a scale for each row, or for each group of columns of a row";
    throw refusal(`${place}.strategy`, rule, strategy);
  }
  const order = weights.actorder ?? false;
  if (order === false || order === "weight" || order === "static") return;
  throw refusal(`${place}.actorder`, "must be null, weight or static: groups are of columns side by side", order);
}

/** An absent strategy is told by the size of the groups; undefined where there is none, one scale for a whole matrix. */
function strategyOf({ strategy, group_size: size }: Json): unknown {
  if (strategy !== undefined && strategy !== null)
    return typeof strategy === "string" ? strategy.toLowerCase() : strategy;
  if (size === undefined || size === null) return undefined;
  return size === -1 ? "channel" : "group";
}

function refusal(key: string, rule: string, got: unknown): ConfigError {
  const cure = "take the checkpoint that it was made from";
  return new ConfigError(`quantization_config.${key}`, rule, got ?? "none", cure);
}
