import { test, expect } from "vitest";
import { Rng } from "/work/main/src/core/index.ts";
import { runKernel, f64 } from "/work/main/test/helpers/kernel-calls.ts";
import { reference } from "/work/main/test/backend/case.ts";
import { ATTENTION_CASES } from "/work/main/test/backend/attention-cases.ts";
import { ELEMENTWISE_CASES } from "/work/main/test/backend/elementwise-cases.ts";
import { MATMUL_CASES } from "/work/main/test/backend/matmul-cases.ts";
import { MOE_CASES } from "/work/main/test/backend/moe-cases.ts";
const all: any = {...ATTENTION_CASES,...ELEMENTWISE_CASES,...MATMUL_CASES,...MOE_CASES};
for (const k of Object.keys(all)) test(k, () => {
  const t=performance.now(); let c=0, bt=0;
  let worst = 0; let gen=t;
  for (const item of all[k](new Rng(2024,k))) { c++;
    const want: any = runKernel(reference,k as any,item.fields,item.numbers,item.alias);
    const t1=performance.now();
    const b = item.bounds?.(want) ?? {};
    for (const o of Object.keys(b)) if (want[o]) for (let i=0;i<want[o].length;i++){ if (Number.isFinite(want[o][i]) ){ const bb=b[o](i); if(!(bb>=0)) throw new Error(`${item.title} ${o} ${i} ${bb} want ${want[o][i]}`); }
    }
    bt+=performance.now()-t1;
  }
  console.log(k, c, "cases", (performance.now()-t).toFixed(0),"ms, bounds", bt.toFixed(0));
});
