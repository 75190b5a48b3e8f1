/** The backends that whole-model tests run on: the reference, and the native one on every instruction set present. */

import { createReferenceBackend, type Backend } from "../../src/kernels/index.ts";
import { createNativeBackend, nativeIsas } from "../../src/kernels/node.ts";

export interface TestBackend {
  readonly label: string;
  readonly create: () => Backend;
}

export function testBackends(): TestBackend[] {
  const native = nativeIsas().map((isa) => ({ label: isa, create: () => createNativeBackend({ isa }) }));
  return [{ label: "reference", create: createReferenceBackend }, ...native];
}
