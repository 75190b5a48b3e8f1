/** What reading the headers of a checkpoint costs when nothing is checked: the measure for the reader that checks all. */

import * as fs from "node:fs";
import * as path from "node:path";

/** Parses the index and the header of every shard as JSON. @returns the number of tensors. */
export function parseAll(folder: string): number {
  const index = fs.readFileSync(path.join(folder, "model.safetensors.index.json"), "utf8");
  const { weight_map: map } = JSON.parse(index) as { weight_map: Record<string, string> };
  const shards = new Set(Object.values(map));
  return [...shards].reduce((sum, shard) => sum + Object.keys(parseHeader(path.join(folder, shard))).length - 1, 0);
}

function parseHeader(file: string): object {
  const handle = fs.openSync(file, "r");
  try {
    const length = Buffer.alloc(8);
    fs.readSync(handle, length, 0, 8, 0);
    const json = Buffer.alloc(Number(length.readBigUInt64LE()));
    fs.readSync(handle, json, 0, json.length, 8);
    return JSON.parse(json.toString()) as object;
  } finally {
    fs.closeSync(handle);
  }
}
