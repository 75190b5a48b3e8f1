/** Every kernel of the native backend against the reference, on every instruction set of this machine. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Rng } from "../../src/core/index.ts";
import { KERNELS, type Backend, type KernelName } from "../../src/kernels/index.ts";
import { createNativeBackend, nativeIsas } from "../../src/kernels/node.ts";
import { runKernel } from "../helpers/kernel-calls.ts";
import { ATTENTION_CASES } from "./attention-cases.ts";
import { reference, type Case, type Cases, type Results } from "./case.ts";
import { ELEMENTWISE_CASES } from "./elementwise-cases.ts";
import { MATMUL_CASES } from "./matmul-cases.ts";
import { MOE_CASES } from "./moe-cases.ts";
import { STORED_CASES } from "./stored-cases.ts";
import type { Bound } from "./tolerances.ts";

const CASES: { readonly [K in KernelName]: Cases<K> } = {
  ...ELEMENTWISE_CASES,
  ...MATMUL_CASES,
  ...MOE_CASES,
  ...ATTENTION_CASES,
};
const SEED = 2024;
const KERNEL_NAMES = Object.keys(KERNELS) as KernelName[];

function* casesOf<K extends KernelName>(kernel: K): Iterable<Case<K>> {
  yield* CASES[kernel](new Rng(SEED, kernel));
  yield* (STORED_CASES[kernel] as Cases<K> | undefined)?.(new Rng(SEED, kernel)) ?? [];
}

const backends = nativeIsas().map((isa) => ({
  isa,
  one: createNativeBackend({ isa, threads: 1 }),
  two: createNativeBackend({ isa, threads: 2 }),
}));

const run = <K extends KernelName>(backend: Backend, kernel: K, { fields, numbers, alias }: Case<K>): Results<K> =>
  runKernel<K>(backend, kernel, fields, numbers, alias);

/** Where two results differ most beyond what is allowed, in words; undefined when they agree. */
function disagreement(got: Float64Array, want: Float64Array, bound: Bound = () => 0): string | undefined {
  let worst = -1;
  let worstError = 0;
  for (let i = 0; i < want.length; i++) {
    const [a, b] = [got[i]!, want[i]!];
    // The bits of NaN and the sign of zero are free.
    if (a === b || (Number.isNaN(a) && Number.isNaN(b))) continue;
    const error = Number.isNaN(a - b) ? Infinity : Math.abs(a - b);
    if (error > worstError && !(error <= bound(i))) [worst, worstError] = [i, error];
  }
  if (worst < 0) return undefined;
  return `index ${worst}: got ${got[worst]}, want ${want[worst]}, difference ${worstError}, allowed ${bound(worst)}`;
}

function hasSameBits(a: Float64Array, b: Float64Array): boolean {
  for (let i = 0; i < b.length; i++) if (!Object.is(a[i], b[i])) return false;
  return true;
}

describe.each(KERNEL_NAMES)("%s", (kernel) => {
  let cases: Case<typeof kernel>[] = [];
  // Some hundreds of matrices are drawn, which takes seconds on a busy machine.
  beforeAll(() => {
    cases = [...casesOf(kernel)];
  }, 60_000);
  afterAll(() => {
    cases = [];
  });

  test("agrees with the reference on every instruction set", () => {
    for (const item of cases) {
      const want = run(reference, kernel, item);
      const bounds: Partial<Record<string, Bound>> = item.bounds?.(want) ?? {};
      for (const { isa, one } of backends) {
        for (const [key, got] of Object.entries<Float64Array>(run(one, kernel, item))) {
          const place = `${isa}: ${kernel}.${key} (${item.title}; seed ${SEED}, stream ${kernel})`;
          expect(disagreement(got, want[key as keyof typeof want], bounds[key]), place).toBeUndefined();
        }
      }
    }
  });

  test("gives equal bits on one thread and on two", () => {
    for (const item of cases) {
      for (const { isa, one, two } of backends) {
        const want = run(one, kernel, item);
        for (const [key, got] of Object.entries<Float64Array>(run(two, kernel, item))) {
          const same = hasSameBits(got, want[key as keyof typeof want]);
          expect(same, `${isa}: ${kernel}.${key} (${item.title}; seed ${SEED}, stream ${kernel})`).toBe(true);
        }
      }
    }
  });
});
