/** Tensors, scopes, the tape and the operations. */

export { Storage } from "./storage.ts";
export { Tensor, sizeOf, type Shape } from "./tensor.ts";
export { Parameter } from "./parameter.ts";
export { Scope, type Compute } from "./scope.ts";
export { StoredMatrix, weightOperands, type StoredScale, type Weight } from "./stored-matrix.ts";
export { Tape } from "./tape.ts";
export { Profiler } from "./profiler.ts";
export { add, siluMul } from "./ops/elementwise.ts";
export { computeId, linear } from "./ops/linear.ts";
export { rmsNorm } from "./ops/norm.ts";
export { embedding } from "./ops/embedding.ts";
export { split, concat } from "./ops/layout.ts";
export { rope } from "./ops/rope.ts";
export { attention, groupedAttention } from "./ops/attention.ts";
export { route, balanceLoss, experts, type RouteAttrs } from "./ops/moe.ts";
export { headLoss } from "./ops/loss.ts";
