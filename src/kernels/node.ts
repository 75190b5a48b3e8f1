/** The native backend, which needs Node and the built addon. */

export type { NativeBackend, NativeOptions } from "./native/backend.ts";
export { availableBytes, createNativeBackend, measureRoof, nativeIsas } from "./native/backend.ts";
