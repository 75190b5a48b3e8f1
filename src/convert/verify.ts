/** Reads a converted checkpoint back: names, shapes and count against its model, every byte, every value. */

import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { openModel } from "../blueprint/node.ts";
import { FormatError, NumericError } from "../core/errors.ts";
import { nodeFiles } from "../formats/node.ts";
import { openWeights } from "./open-weights.ts";
import { ggufFirstPart } from "./plan.ts";
import type { WeightRows } from "./weight-rows.ts";

export interface Verified {
  /** What opens the model: the folder, the file, or the first part of a split file. */
  readonly path: string;
  readonly tensors: number;
  /** Values of parameters, scales not counted. */
  readonly values: number;
  readonly files: number;
}

const SLAB_VALUES = 2 ** 21;
const CHUNK_BYTES = 2 ** 23;

/**
 * @param digests - SHA-256 of every file by its name, as they were written.
 * @throws FormatError when a file has other bytes or lacks a tensor. @throws NumericError for a value that is not finite.
 */
export async function verifyConversion(target: string, digests: ReadonlyMap<string, string>): Promise<Verified> {
  const folder = target.endsWith(".gguf") ? dirname(target) : target;
  for (const [name, due] of digests) await checkDigest(join(folder, name), due);
  const path = ggufFirstPart(target, digests.keys());
  const opened = await openModel(path);
  const weights = await openWeights(opened);
  try {
    let values = 0;
    for (const { name } of opened.blueprint.parameters) values += await checkFinite(name, weights.of(name));
    const { source } = opened;
    return { path, tensors: "tensors" in source ? source.tensors.size : 0, values, files: digests.size };
  } finally {
    await weights.close();
  }
}

async function checkDigest(path: string, due: string): Promise<void> {
  const file = await nodeFiles.openRead(path);
  const hash = createHash("sha256");
  try {
    for (let at = 0; at < file.bytes; at += CHUNK_BYTES) hash.update(await file.read(at, CHUNK_BYTES));
  } finally {
    await file.close();
  }
  const got = hash.digest("hex");
  if (got === due) return;
  throw new FormatError(path, `must have the SHA-256 ${due} with which it was written`, {
    got,
    cure: "check the disk",
  });
}

async function checkFinite(name: string, source: WeightRows): Promise<number> {
  const { rows, columns } = source;
  const slab = Math.max(1, Math.floor(SLAB_VALUES / columns));
  for (let first = 0; first < rows; first += slab) {
    const bad = (await source.read(first, Math.min(slab, rows - first))).find((value) => !Number.isFinite(value));
    if (bad !== undefined) throw new NumericError(name, "must be finite numbers", bad, "convert to a wider --dtype");
  }
  return rows * columns;
}
