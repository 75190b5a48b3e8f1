/** Parameters in the tensors of a GGUF file, and the tensors of a GGUF file out of parameters. */

import { ggufNames, type Blueprint, type GgufTensorName } from "../blueprint/index.ts";
import { invariant } from "../core/errors.ts";
import type { OpenTensors, StoredTensor } from "../formats/index.ts";
import { storedRows } from "./stored-rows.ts";
import {
  joinColumns,
  reorderBlock,
  sliceColumns,
  sliceRows,
  stackRows,
  transposeBlock,
  type WeightRows,
} from "./weight-rows.ts";
import { lookUp, type ModelWeights } from "./model-weights.ts";

export function ggufWeights(open: OpenTensors<StoredTensor>, blueprint: Blueprint): ModelWeights["of"] {
  const places = new Map<string, GgufTensorName[]>();
  const splitKvB = open.tensors.has("blk.0.attn_k_b.weight");
  for (const entry of ggufNames(blueprint, { splitKvB })) {
    for (const parameter of entry.parameters) places.set(parameter, [...(places.get(parameter) ?? []), entry]);
  }
  const rowsOf = (entry: GgufTensorName): WeightRows => storedRows(open, entry.name);
  return (parameter) => lookUp(places, (entries) => fromGgufLayout(parameter, entries, rowsOf, blueprint))(parameter);
}

function fromGgufLayout(
  parameter: string,
  entries: readonly GgufTensorName[],
  rowsOf: (entry: GgufTensorName) => WeightRows,
  { model }: Blueprint,
): WeightRows {
  const [first, second] = entries;
  const rows = rowsOf(first!);
  switch (first!.layout) {
    case "same":
      return rows;
    case "halves":
      return perHead(rows, rows.rows / model.headDim, (head) => reorderBlock(head, fromPairs(model.headDim)));
    case "joined": {
      const width = rows.columns / first!.parameters.length;
      return sliceColumns(rows, first!.parameters.indexOf(parameter) * width, width);
    }
    case "keys":
    case "values": {
      invariant(first!.layout === "keys" && second !== undefined, "keys stand before values");
      const values = rowsOf(second);
      const { nHeads, kvLoraRank, vHeadDim } = model;
      return stackRows(
        Array.from({ length: nHeads }, (_, h) => [
          transposeBlock(sliceRows(rows, h * kvLoraRank, kvLoraRank)),
          sliceRows(values, h * vHeadDim, vHeadDim),
        ]).flat(),
      );
    }
    default:
      return first!.layout satisfies never;
  }
}

/** The rows of a tensor of GGUF, made of the parameters that it holds. */
export function toGgufLayout(
  { layout, parameters }: GgufTensorName,
  weights: ModelWeights,
  plan: Blueprint,
): WeightRows {
  const { nHeads, headDim, qkNopeHeadDim, vHeadDim } = plan.model;
  const rows = weights.of(parameters[0]!);
  const perHeadRows = qkNopeHeadDim + vHeadDim;
  switch (layout) {
    case "same":
      return rows;
    case "halves":
      return perHead(rows, rows.rows / headDim, (head) => reorderBlock(head, toPairs(headDim)));
    case "joined":
      return joinColumns(parameters.map((name) => weights.of(name)));
    case "keys":
      return stackRows(
        Array.from({ length: nHeads }, (_, h) => transposeBlock(sliceRows(rows, h * perHeadRows, qkNopeHeadDim))),
      );
    case "values":
      return stackRows(
        Array.from({ length: nHeads }, (_, h) => sliceRows(rows, h * perHeadRows + qkNopeHeadDim, vHeadDim)),
      );
    default:
      return layout satisfies never;
  }
}

function perHead(rows: WeightRows, heads: number, change: (head: WeightRows) => WeightRows): WeightRows {
  const size = rows.rows / heads;
  return stackRows(Array.from({ length: heads }, (_, h) => change(sliceRows(rows, h * size, size))));
}

/** From half-split rotation, which turns row i with row i + n/2, to neighbouring rows. */
function toPairs(size: number): (row: number) => number {
  return (row) => Math.floor(row / 2) + (row % 2) * (size / 2);
}

function fromPairs(size: number): (row: number) => number {
  return (row) => 2 * (row % (size / 2)) + Math.floor(row / (size / 2));
}
