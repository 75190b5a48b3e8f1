/** Everything that is counted of a model in one plain object: what `fathom params` prints. */

import type { Counted } from "./blueprint.ts";
import { byGroup, countModule, countParameters, gather, type ModuleCount } from "./counts.ts";
import { exactSum, GROUPS, type CountedParameter } from "./parameter.ts";
import { countStorage, type StorageCounts } from "./storage.ts";

export interface ModuleReport {
  /** A group (`attention`), a part of it in all layers (`layers.*.attn.wq_a`), or one parameter. */
  readonly name: string;
  readonly total: number;
  readonly activated: number;
  readonly trainable: number;
  readonly buffers: number;
  /** Payload in the checkpoint, scales included; what belongs to MTP is left out. */
  readonly bytes: number;
  /** Share of the model's total, in 0 to 1. */
  readonly share: number;
  /** Share of what one token activates. */
  readonly activeShare: number;
  readonly modules?: readonly ModuleReport[];
}

export interface ParameterReport {
  readonly total: number;
  readonly activated: number;
  readonly activatedWithoutEmbedding: number;
  readonly trainable: number;
  readonly buffers: number;
  readonly mtp: number;
  readonly duplicates: number;
  readonly scales: number;
  readonly tables: number;
  readonly stored: Pick<StorageCounts, "elements" | "bytes" | "tensors" | "byDtype">;
  readonly modules: readonly ModuleReport[];
}

/** How deep modules are listed: groups; their parts over all layers; every parameter. */
export type ReportDepth = 1 | 2 | 3;

/**
 * @param stored - what a checkpoint really holds, where there is one; else what the released one holds.
 * @throws ConfigError where a count is beyond 2^53.
 */
export function reportParameters(
  counted: Counted,
  { depth = 1, stored = countStorage(counted) }: { depth?: ReportDepth; stored?: StorageCounts } = {},
): ParameterReport {
  const { total, activated, trainable, buffers, mtp, byModule } = countParameters(counted);
  const { elements, bytes, tensors, byDtype, duplicates, scales, tables, bytesOf } = stored;
  const main = counted.parameters.filter((parameter) => !parameter.mtp);
  return {
    total,
    activated,
    activatedWithoutEmbedding: activated - (byModule.embedding?.activated ?? 0),
    trainable,
    buffers,
    mtp,
    duplicates,
    scales,
    tables,
    stored: { elements, bytes, tensors, byDtype },
    modules: [...byGroup(main)].map(([group, members]) =>
      reportModule(group, members, { depth, of: { total, activated }, bytesOf }),
    ),
  };
}

function reportModule(
  name: string,
  members: readonly CountedParameter[],
  at: { depth: number; of: ModuleCount; bytesOf: StorageCounts["bytesOf"] },
): ModuleReport {
  const counts = countModule(members);
  const report = {
    name,
    ...counts,
    bytes: exactSum(members.map((member) => at.bytesOf.get(member.name) ?? 0)),
    share: counts.total / at.of.total,
    activeShare: counts.activated / at.of.activated,
  };
  if (at.depth === 1) return report;
  const parts = gather(members, (member) => (isGroup(name) ? overLayers(member.name) : member.name));
  const modules = [...parts].map(([part, its]) => reportModule(part, its, { ...at, depth: at.depth - 1 }));
  return { ...report, modules };
}

function isGroup(name: string): boolean {
  return GROUPS.some((group) => group === name);
}

/** `layers.3.attn.wo` → `layers.*.attn.wo` */
function overLayers(name: string): string {
  return name.replaceAll(/\.\d+(?=\.)/g, ".*");
}
