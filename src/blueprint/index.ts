/** The blueprint of a model and what is read from it: counts and checkpoint names. */

export { blueprint, type Blueprint } from "./blueprint.ts";
export { checkpointCopies, checkpointNames, type CheckpointTensor } from "./checkpoint-names.ts";
export { countParameters, type ModuleCount, type ParameterCounts } from "./counts.ts";
export {
  countElements,
  type Init,
  type Module,
  type ParameterSpec,
  type ParameterGroup,
  type ShardAxes,
} from "./parameter.ts";
