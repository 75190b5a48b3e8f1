/** Exact parameter counts, read from the blueprint. */

import type { Blueprint } from "./blueprint.ts";
import { countElements, GROUPS, type ParameterSpec, type ParameterGroup } from "./parameter.ts";

export interface ModuleCount {
  readonly total: number;
  readonly activated: number;
}

export interface ParameterCounts {
  /** Trainable parameters and buffers of the main model, without MTP. */
  readonly total: number;
  /** Those that one token uses, with embedding and head in full. */
  readonly activated: number;
  readonly trainable: number;
  readonly buffers: number;
  /** Parameters and buffers that only the MTP layers have. */
  readonly mtp: number;
  /** The main model by group; a group that it lacks is left out. */
  readonly byModule: Readonly<Partial<Record<ParameterGroup, ModuleCount>>>;
}

export function countParameters({ parameters }: Blueprint): ParameterCounts {
  const main = parameters.filter((parameter) => !parameter.mtp);
  const byModule: Partial<Record<ParameterGroup, ModuleCount>> = {};
  for (const group of GROUPS) {
    const members = main.filter((parameter) => parameter.group === group);
    if (members.length > 0) byModule[group] = { total: sum(members, elements), activated: sum(members, activated) };
  }
  return {
    total: sum(main, elements),
    activated: sum(main, activated),
    trainable: sum(
      main.filter((parameter) => parameter.kind === "trainable"),
      elements,
    ),
    buffers: sum(
      main.filter((parameter) => parameter.kind === "buffer"),
      elements,
    ),
    mtp: sum(
      parameters.filter((parameter) => parameter.mtp),
      elements,
    ),
    byModule,
  };
}

function elements(parameter: ParameterSpec): number {
  return countElements(parameter.shape);
}

/** Rounded because a share such as 6/160 has no exact binary form; the product is a whole number. */
function activated(parameter: ParameterSpec): number {
  return Math.round(elements(parameter) * parameter.activeShare);
}

function sum(parameters: readonly ParameterSpec[], measure: (parameter: ParameterSpec) => number): number {
  return parameters.reduce((total, parameter) => total + measure(parameter), 0);
}
