/**
 * The folder that DeepSeek's demo runs from: a file for each rank of a tensor-parallel group, under the names of its
 * model.py. **Source:** deepseek-ai/DeepSeek-V3 inference/convert.py.
 */

import { join } from "node:path";
import type { Blueprint, ParameterSpec } from "../blueprint/index.ts";
import { FormatError, IoError } from "../core/errors.ts";
import type { TensorReader } from "../formats/index.ts";
import { nodeFiles, openSafetensors } from "../formats/node.ts";
import { lookUp, type ModelWeights } from "./model-weights.ts";
import { storedRows } from "./stored-rows.ts";
import { joinColumns, matrixShape, stackRows, type WeightRows } from "./weight-rows.ts";

const RANK_FILE = /^model(\d+)-mp(\d+)\.safetensors$/;

/**
 * The files of all ranks in order; none for a folder of another kind.
 * @throws IoError when one is missing.
 */
export async function demoFiles(folder: string): Promise<string[]> {
  const names = (await nodeFiles.list(folder)).filter((name) => RANK_FILE.test(name));
  if (names.length === 0) return [];
  const [, , world] = RANK_FILE.exec(names[0]!)!;
  const files = Array.from({ length: Number(world) }, (_, rank) => `model${rank}-mp${world}.safetensors`);
  for (const name of files) {
    if (!names.includes(name)) throw new IoError(join(folder, name), "must exist", { cure: "copy all ranks" });
  }
  return files.map((name) => join(folder, name));
}

/** @throws FormatError when the ranks do not make up the model. */
export async function openDemo(files: readonly string[], plan: Blueprint): Promise<ModelWeights> {
  const ranks: TensorReader[] = [];
  const close = async (): Promise<void> => {
    for (const rank of ranks) await rank.close();
  };
  try {
    for (const file of files) ranks.push(await openSafetensors(file));
    const places = new Map(plan.parameters.map((parameter) => [parameter.name, partsOf(parameter, ranks, files)]));
    return { of: lookUp(places, (rows) => rows), close };
  } catch (error) {
    await close();
    throw error;
  }
}

function partsOf(parameter: ParameterSpec, ranks: readonly TensorReader[], files: readonly string[]): WeightRows {
  const { name, shape, shardAxes } = parameter;
  const part = (rank: number, own: string): WeightRows => {
    if (ranks[rank]!.tensors.has(own)) return storedRows(ranks[rank]!, own);
    throw new FormatError(files[rank]!, `must hold ${own}, which is missing`, { cure: "check --config" });
  };
  const rows = together(parameter, ranks.length, part);
  const due = matrixShape(shape);
  if (rows.rows === due.rows && rows.columns === due.columns) return rows;
  const what = `must hold ${name} as [${shape.join(", ")}] over ${shardAxes.tensor === undefined ? "each" : "all"} ranks`;
  throw new FormatError(files[0]!, what, { got: [rows.rows, rows.columns], cure: "check --config" });
}

function together(
  { name, shape, group, shardAxes }: ParameterSpec,
  world: number,
  part: (rank: number, own: string) => WeightRows,
): WeightRows {
  if (group === "routed_experts") {
    const experts = shape[0]!;
    const ofExpert = (e: number): string => `${name.replace(".experts.", `.experts.${e}.`)}.weight`;
    return stackRows(Array.from({ length: experts }, (_, e) => part(Math.floor((e * world) / experts), ofExpert(e))));
  }
  const own = name.endsWith(".bias") ? name : `${name}.weight`;
  if (shardAxes.tensor === undefined) return part(0, own);
  const parts = Array.from({ length: world }, (_, rank) => part(rank, own));
  return shardAxes.tensor === 0 ? stackRows(parts) : joinColumns(parts);
}
