/** What a checkpoint really holds, by the headers of its files: in place of what the released one is known to hold. */

import type { Blueprint } from "./blueprint.ts";
import { checkpointCopies, namePatterns, releasedGroups } from "./checkpoint-names.ts";
import { ggufNames } from "./gguf-names.ts";
import { countElements } from "./parameter.ts";
import { StorageSums, type StorageCounts, type StoredRole } from "./storage.ts";
import { groupFinder } from "./tensor-groups.ts";

/** A tensor as its header describes it. */
export interface HeaderTensor {
  /** Element or block type in the spelling of the format. */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
}

type Headers = ReadonlyMap<string, HeaderTensor>;

const SCALE = /_scale_inv$|\.weight_scale$|\.scale$/;
const TABLE = /tid2eid(\.weight)?$/;
const GGUF_COPY = /\.nextn\.(embed_tokens|shared_head_head)\.weight$/;

/** @param format - the spelling of the names. */
export function countHeaders(blueprint: Blueprint, tensors: Headers, format: "safetensors" | "gguf"): StorageCounts {
  const copies = new Set(checkpointCopies(blueprint).map(({ name }) => name));
  const parameterOf = owners(blueprint, tensors, format);
  const released = groupFinder(format === "safetensors" ? releasedGroups(blueprint) : []);
  const sums = new StorageSums();
  for (const [name, { dtype, shape, bytes }] of tensors) {
    const group = released(name);
    const role = group?.role ?? (copies.has(name) ? "duplicate" : roleOf(name));
    const owner = group === undefined ? parameterOf.get(ownerPattern(name)) : group.parameter;
    sums.add({ role, dtype, elements: countElements(shape), bytes }, role === "duplicate" ? undefined : owner);
  }
  return sums.finish();
}

function roleOf(name: string): StoredRole {
  if (SCALE.test(name)) return "scale";
  if (TABLE.test(name)) return "table";
  return GGUF_COPY.test(name) ? "duplicate" : "parameter";
}

/** The name of the tensor that a scale belongs to, with `*` for the expert. */
function ownerPattern(name: string): string {
  return name
    .replace(/_scale_inv$|(?<=\.weight)_scale$/, "")
    .replace(/\.scale$/, ".weight")
    .replace(/\.experts\.\d+\./, ".experts.*.");
}

/** The parameter of each name, where `*` stands for the expert. */
function owners(blueprint: Blueprint, tensors: Headers, format: "safetensors" | "gguf"): Map<string, string> {
  if (format === "safetensors") return namePatterns(blueprint);
  const splitKvB = tensors.has("blk.0.attn_k_b.weight");
  return new Map(ggufNames(blueprint, { splitKvB }).map(({ name, parameters }) => [name, parameters[0]!]));
}
