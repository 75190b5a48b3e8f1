/**
 * Training tokens per second against PyTorch running the same model of `transformers`, taking turns in one run.
 *
 *     npx tsx bench/train/peers.bench.ts nano --python VENV/bin/python [--rounds 5] [--steps 4] [--torch f32:eager,bf16:eager:compile]
 *
 * Both sides: no MTP, no balance terms, AdamW, clip 1.0, random tokens, the same tokens per step, two threads. A torch
 * variant is PRECISION:EXPERTS[:compile]. Appends one JSON line to bench/results/train-peers.jsonl.
 */

import { parseArgs } from "node:util";
import { resolveConfig, type ResolvedConfig } from "../../src/config/index.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";
import { Rates, startTorchPeers } from "../peer.ts";
import { createRandomTrainer } from "../random-text.ts";
import { appendResult } from "../result-file.ts";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: "string", default: "python3" },
    rounds: { type: "string", default: "5" },
    steps: { type: "string", default: "4" },
    torch: { type: "string", default: "f32:eager,f32:grouped_mm,bf16:eager,bf16:grouped_mm" },
  },
});
const preset = positionals[0] ?? "nano";
const [rounds, steps] = [Number(flags.rounds), Number(flags.steps)];

function configFor(precision: string): ResolvedConfig {
  return resolveConfig(preset, { n_mtp_layers: 0, seq_balance_alpha: 0, precision, threads: 2 });
}

const backend = createNativeBackend({ threads: 2 });
const trainers = ["f32", "bf16"].map((precision) => ({
  name: `fathom ${precision}`,
  trainer: createRandomTrainer(backend, configFor(precision), 64),
}));
for (const { trainer } of trainers) for (let i = 0; i < 2; i++) await trainer.step();
const { model, training } = configFor("f32");
const peers = await startTorchPeers({
  python: flags.python,
  script: "torch_train.py",
  variants: flags.torch.split(",").filter(Boolean),
  model,
  args: ["--batch", training.batchSize, "--seq-len", training.seqLen],
});
const rates = new Rates();
/** Idle threads of the side that has just worked may spin for a while before they sleep. */
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 400));
for (let round = 0; round < rounds; round++) {
  rates.startRound();
  for (const { name, trainer } of trainers) {
    await settle();
    for (let i = 0; i < steps; i++) rates.record(name, (await trainer.step()).tokensPerSec);
  }
  for (const peer of peers) {
    await settle();
    rates.record(peer.name, (await peer.ask(steps)).median_tokens_per_sec as number);
  }
}
for (const peer of peers) peer[Symbol.dispose]();

const ratios = {
  f32: rates.best("fathom f32") / rates.best("torch f32"),
  best: rates.best("fathom") / rates.best("torch"),
};
rates.print(`f32 against f32 ${ratios.f32.toFixed(2)} ×, best against best ${ratios.best.toFixed(2)} ×`, 0);
appendResult("train-peers", {
  command: process.argv.slice(2).filter((arg) => !arg.includes("/")),
  preset,
  isa: backend.isa,
  rounds,
  steps,
  loads: rates.loads,
  table: rates.table(),
  ratios,
});
