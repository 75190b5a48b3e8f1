/** The kernels that every backend implements, and the reference backend in plain TypeScript. Runs anywhere. */

export type { Backend, Handle, KernelName, KernelNumbers, KernelOperands, MemoryStats, Operand } from "./contract.ts";
export { KERNELS } from "./contract.ts";
export { decodeCalls, encodeCall } from "./encode.ts";
export { createPlanningBackend } from "./planning.ts";
export { record, type Recording } from "./recording.ts";
export { createReferenceBackend } from "./reference/backend.ts";
