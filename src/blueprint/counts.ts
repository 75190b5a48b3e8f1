/** Exact parameter counts, read from the blueprint. */

import type { Counted } from "./blueprint.ts";
import {
  countElements,
  exactSum,
  GROUPS,
  type CountedParameter,
  type ParameterGroup,
  type ParameterSpec,
} from "./parameter.ts";

export interface ModuleCount {
  readonly total: number;
  readonly activated: number;
}

export interface KindCount extends ModuleCount {
  /** Reached by gradient, and changed by other means. */
  readonly trainable: number;
  readonly buffers: number;
}

export interface ParameterCounts extends KindCount {
  /** Trainable parameters and buffers of the main model, without MTP. */
  readonly total: number;
  /** Those that one token uses, with embedding and head in full. */
  readonly activated: number;
  /** Parameters and buffers that only the MTP layers have. */
  readonly mtp: number;
  /** The main model by group; a group that it lacks is left out. */
  readonly byModule: Readonly<Partial<Record<ParameterGroup, ModuleCount>>>;
}

/** @throws ConfigError where a count is beyond 2^53 and would no longer be exact. */
export function countParameters({ parameters }: Counted): ParameterCounts {
  const main = parameters.filter(({ mtp }) => !mtp);
  const byModule: Partial<Record<ParameterGroup, ModuleCount>> = {};
  for (const [group, members] of byGroup(main)) {
    const { total, activated } = countModule(members);
    byModule[group] = { total, activated };
  }
  return { ...countModule(main), mtp: countModule(parameters.filter(({ mtp }) => mtp)).total, byModule };
}

/** Parameters by group, in the order of the groups; a group without any is left out. */
export function byGroup(parameters: readonly CountedParameter[]): Map<ParameterGroup, CountedParameter[]> {
  const groups = gather(parameters, ({ group }) => group);
  return new Map(GROUPS.flatMap((group) => (groups.has(group) ? [[group, groups.get(group)!]] : [])));
}

/** Parameters by a key, each list in their order. */
export function gather<K>(
  parameters: readonly CountedParameter[],
  keyOf: (parameter: CountedParameter) => K,
): Map<K, CountedParameter[]> {
  const lists = new Map<K, CountedParameter[]>();
  for (const parameter of parameters) {
    const list = lists.get(keyOf(parameter));
    if (list === undefined) lists.set(keyOf(parameter), [parameter]);
    else list.push(parameter);
  }
  return lists;
}

/** Elements of some parameters; tables are none. */
export function countModule(parameters: readonly CountedParameter[]): KindCount {
  const sums = { trainable: 0, buffer: 0, table: 0 };
  let used = 0;
  for (const parameter of parameters) {
    const { kind, times = 1 } = parameter;
    sums[kind] += times * elements(parameter);
    if (kind !== "table") used += times * activated(parameter);
  }
  const { trainable, buffer } = sums;
  return { total: exactSum([trainable, buffer]), activated: exactSum([used]), trainable, buffers: buffer };
}

function elements(parameter: ParameterSpec): number {
  return countElements(parameter.shape);
}

/** A share such as 6/160 has no exact binary form, but a stack's share is a whole number of experts. */
function activated(parameter: ParameterSpec): number {
  const { shape, activeShare } = parameter;
  if (activeShare === 1) return elements(parameter);
  return (elements(parameter) / shape[0]!) * Math.round(shape[0]! * activeShare);
}
