/**
 * A low-rank adapter of PEFT merged into the weights that it was trained beside: `W + scale · B A`, a slab of rows at a
 * time. **Source:** huggingface/peft src/peft/tuners/lora (config.py, layer.py).
 */

import { join } from "node:path";
import { checkpointNames, type Blueprint, type CheckpointTensor } from "../blueprint/index.ts";
import { FormatError, UnsupportedError } from "../core/errors.ts";
import { readText, type TensorReader } from "../formats/index.ts";
import { nodeFiles, openSafetensors } from "../formats/node.ts";
import type { ModelWeights } from "./model-weights.ts";
import { storedRows } from "./stored-rows.ts";
import { sliceRows, stackRows, type WeightRows } from "./weight-rows.ts";

const CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";

/** Settings that change what merging means, with the values that leave it as it is. */
const PLAIN: Readonly<Record<string, readonly unknown[]>> = {
  use_dora: [false],
  use_qalora: [false],
  fan_in_fan_out: [false],
  lora_bias: [false],
  bias: ["none"],
  // The others change the weights beside which the adapter is trained.
  init_lora_weights: [true, false, "gaussian", "orthogonal", "eva"],
  modules_to_save: [[]],
  target_parameters: [[]],
  trainable_token_indices: [[]],
  layer_replication: [[]],
  alora_invocation_tokens: [[]],
  rank_pattern: [{}],
  alpha_pattern: [{}],
};

interface Pair {
  readonly down: WeightRows;
  readonly up: WeightRows;
}

/** By parameter and expert; a whole parameter has expert 0. */
type Pairs = ReadonlyMap<string, ReadonlyMap<number, Pair>>;

export interface AdapterFiles {
  readonly weights: ModelWeights;
  readonly files: readonly string[];
}

/**
 * Weights with the adapter in `folder` merged in; closing them closes both.
 * @throws FormatError when the adapter belongs to another model. @throws UnsupportedError when it is more than plain LoRA.
 */
export async function mergeAdapter(base: ModelWeights, folder: string, plan: Blueprint): Promise<AdapterFiles> {
  const scale = await readScale(join(folder, CONFIG));
  const path = join(folder, WEIGHTS);
  if (!(await nodeFiles.isFile(path)) && (await nodeFiles.isFile(join(folder, "adapter_model.bin")))) {
    const cure = "save it again in Python with safe_serialization=True";
    throw new UnsupportedError(folder, "must not be a pickle, which can run any code", ".bin", ["safetensors"], cure);
  }
  const open = await openSafetensors(path);
  const close = async (): Promise<void> => {
    await open.close();
    await base.close();
  };
  try {
    const pairs = pairsOf(open, plan, path);
    const of = (parameter: string): WeightRows =>
      merged(base.of(parameter), pairs.get(parameter), scale, parameter, plan);
    return { weights: { of, close }, files: [path, join(folder, CONFIG)] };
  } catch (error) {
    await open.close();
    throw error;
  }
}

/** `lora_alpha / r`, or over √r with rslora. */
async function readScale(path: string): Promise<number> {
  const config = parse(await readText(nodeFiles, path), path);
  const { peft_type: type, r, lora_alpha: alpha } = config;
  if (type !== "LORA") throw new UnsupportedError(`${path} peft_type`, "must be LORA", type ?? "none", ["LORA"]);
  for (const [key, plain] of Object.entries(PLAIN)) {
    const value = JSON.stringify(config[key] ?? null);
    const known = plain.map((item) => JSON.stringify(item));
    if (value === "null" || known.includes(value)) continue;
    const cure = "merge the adapter in Python with merge_and_unload()";
    throw new UnsupportedError(`${path} ${key}`, "must be that of a plain LoRA", config[key], known, cure);
  }
  if (typeof r !== "number" || typeof alpha !== "number" || r < 1) {
    throw new FormatError(path, "must give r and lora_alpha as numbers", { got: [r ?? "none", alpha ?? "none"] });
  }
  return alpha / (config.use_rslora === true ? Math.sqrt(r) : r);
}

function parse(text: string, path: string): Readonly<Record<string, unknown>> {
  try {
    return Object(JSON.parse(text)) as Readonly<Record<string, unknown>>;
  } catch (error) {
    throw new FormatError(path, "must be JSON", { got: (error as Error).message });
  }
}

const LORA_NAME = /^base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight$/;

function pairsOf(open: TensorReader, plan: Blueprint, path: string): Pairs {
  const places = new Map(checkpointNames(plan).map((entry) => [entry.name, entry]));
  const pairs = new Map<string, Map<number, Pair>>();
  for (const name of open.tensors.keys()) {
    const [, module, side] = LORA_NAME.exec(name) ?? [];
    const place = module === undefined ? undefined : places.get(`${module}.weight`);
    if (place === undefined) {
      const cure = "the adapter is not plain LoRA, or belongs to another model";
      throw new FormatError(path, "must hold LoRA pairs of the model's matrices only", { got: name, cure });
    }
    if (side === "B") continue;
    const pair = { down: storedRows(open, name), up: storedRows(open, otherOf(open, name, path)) };
    checkPair(path, name, pair, place);
    const own = pairs.get(place.parameter) ?? new Map<number, Pair>();
    pairs.set(place.parameter, own.set(place.expert ?? 0, pair));
  }
  return pairs;
}

function otherOf(open: TensorReader, name: string, path: string): string {
  const other = name.replace(/\.lora_A(?=(?:\.default)?\.weight$)/, ".lora_B");
  if (open.tensors.has(other)) return other;
  throw new FormatError(path, `must hold ${other}, which is missing`);
}

function checkPair(path: string, name: string, { down, up }: Pair, { shape }: CheckpointTensor): void {
  const got = [up.rows, up.columns, down.rows, down.columns];
  if (got[0] === shape[0] && got[3] === shape[1] && got[1] === got[2]) return;
  const what = `must hold ${name} and its B as [${shape.join(", ")}] through one rank`;
  throw new FormatError(path, what, { got, cure: "the adapter belongs to another model" });
}

function merged(
  rows: WeightRows,
  pairs: ReadonlyMap<number, Pair> | undefined,
  scale: number,
  parameter: string,
  plan: Blueprint,
): WeightRows {
  if (pairs === undefined) return rows;
  const spec = plan.parameters.find(({ name }) => name === parameter)!;
  const experts = spec.group === "routed_experts" ? spec.shape[0]! : 1;
  const size = rows.rows / experts;
  return stackRows(
    Array.from({ length: experts }, (_, e) => {
      const own = sliceRows(rows, e * size, size);
      const pair = pairs.get(e);
      return pair === undefined ? own : addLowRank(own, pair, scale);
    }),
  );
}

function addLowRank(base: WeightRows, { down, up }: Pair, scale: number): WeightRows {
  const { rows, columns } = base;
  return {
    rows,
    columns,
    read: async (first, count) => {
      const out = await base.read(first, count);
      const a = await down.read(0, down.rows);
      const b = await up.read(first, count);
      const sum = new Float64Array(columns);
      for (let row = 0; row < count; row++) {
        sum.fill(0);
        for (let k = 0; k < down.rows; k++) {
          const factor = b[row * down.rows + k]!;
          for (let column = 0; column < columns; column++) sum[column]! += factor * a[k * columns + column]!;
        }
        for (let column = 0; column < columns; column++) out[row * columns + column]! += scale * sum[column]!;
      }
      return out;
    },
  };
}
