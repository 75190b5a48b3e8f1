/**
 * What a busy neighbour costs: training and decoding speed alone and beside one process that keeps a core busy, in turns.
 *
 *     npx tsx bench/train/neighbour.bench.ts [--rounds 5]
 *
 * With two cores the fair share beside one busy process is 2/3. Appends to bench/results/neighbour.jsonl.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { resolveConfig } from "../../src/config/index.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";
import { openRandomEngine, decodeRate } from "../infer/random-engine.ts";
import { median } from "../peer.ts";
import { createRandomTrainer } from "../random-text.ts";
import { appendResult } from "../result-file.ts";

const { values: flags } = parseArgs({ options: { rounds: { type: "string", default: "5" } } });
const backend = createNativeBackend({ threads: 2 });
using trainer = createRandomTrainer(backend, resolveConfig("nano"), 8);
using engine = await openRandomEngine(backend, resolveConfig("nano", { temperature: 0, max_tokens: 128 }));

async function trainRate(): Promise<number> {
  const rates: number[] = [];
  for (let i = 0; i < 3; i++) rates.push((await trainer.step()).tokensPerSec);
  return median(rates);
}

async function beside<T>(work: () => Promise<T>): Promise<T> {
  const busy = spawn(process.execPath, ["-e", "for (;;);"], { stdio: "ignore" });
  await new Promise((resolve) => setTimeout(resolve, 200));
  try {
    return await work();
  } finally {
    busy.kill("SIGKILL");
    await once(busy, "exit");
  }
}

await trainRate();
await decodeRate(engine);
const rates = {
  trainAlone: [] as number[],
  trainBeside: [] as number[],
  decodeAlone: [] as number[],
  decodeBeside: [] as number[],
};
const loads: number[] = [];
for (let round = 0; round < Number(flags.rounds); round++) {
  loads.push(loadavg()[0]!);
  rates.trainAlone.push(await trainRate());
  rates.trainBeside.push(await beside(trainRate));
  rates.decodeAlone.push(await decodeRate(engine));
  rates.decodeBeside.push(await beside(() => decodeRate(engine)));
}
const kept = {
  train: median(rates.trainBeside) / median(rates.trainAlone),
  decode: median(rates.decodeBeside) / median(rates.decodeAlone),
};
console.log(
  `beside a busy process training keeps ${(100 * kept.train).toFixed(0)} %, decoding ${(100 * kept.decode).toFixed(0)} %`,
);
appendResult("neighbour", { isa: backend.isa, loads, rates, kept });
