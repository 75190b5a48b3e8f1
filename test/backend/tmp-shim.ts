import { createRequire } from "node:module";
import { InternalError } from "../../src/core/index.ts";
import type { Backend } from "../../src/kernels/index.ts";
const a = createRequire(import.meta.url)("/work/main/native/fathom.node");
const g = <T>(f: () => T): T => { try { return f(); } catch (e) { throw new InternalError((e as Error).message); } };
export const nativeIsas = (): string[] => a.machine().isas;
export function createNativeBackend(o: { isa?: string; threads?: number } = {}): Backend {
  const e = a.openEngine(o.isa ?? null, o.threads ?? null);
  return {
    name: "native", isa: e.isa, threads: e.threads,
    alloc: (n) => g(() => a.alloc(n)), free: (h) => g(() => a.free(h)),
    write: (h, o, d) => g(() => a.write(h, o, d)),
    read: async (h, o, l) => g(() => a.read(h, o, l)),
    readSync: (h, o, l) => g(() => a.read(h, o, l)),
    run: (w) => g(() => a.run(e.id, w)),
    stats: () => a.stats(), resetPeak: () => a.resetPeak(),
  };
}
export const kernelTable = () => a.kernelTable();
