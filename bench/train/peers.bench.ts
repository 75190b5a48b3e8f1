/**
 * Training tokens per second against PyTorch running the same model of `transformers`, taking turns in one run.
 *
 *     npx tsx bench/train/peers.bench.ts nano --python VENV/bin/python [--rounds 5] [--steps 4] [--torch f32:eager,bf16:eager:compile]
 *
 * Both sides: no MTP, no balance terms, AdamW, clip 1.0, random tokens, the same tokens per step, two threads. A torch
 * variant is PRECISION:EXPERTS[:compile]. Appends one JSON line to bench/results/train-peers.jsonl.
 */

import { appendFileSync, mkdtempSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { resolveConfig, hfConfigText, type ResolvedConfig } from "../../src/config/index.ts";
import { createNativeBackend, type NativeBackend } from "../../src/kernels/node.ts";
import { Trainer } from "../../src/train/index.ts";
import { Peer, median } from "../peer.ts";
import { randomText } from "../random-text.ts";

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

function createTrainer(backend: NativeBackend, precision: string): Trainer {
  const config = configFor(precision);
  const text = randomText(config, 64);
  const tokenBytes = new Uint8Array(config.model.vocabSize).fill(1);
  return new Trainer({ backend, config, train: text, validation: text, tokenBytes, now: () => performance.now() });
}

function createPeer(variant: string, configPath: string): Peer {
  const [dtype, experts, compile] = variant.split(":");
  const { batchSize, seqLen } = configFor("f32").training;
  const args = [
    "--config",
    configPath,
    "--batch",
    batchSize,
    "--seq-len",
    seqLen,
    "--dtype",
    dtype!,
    "--experts",
    experts!,
  ];
  const command = [flags.python, join(import.meta.dirname, "../peers/torch_train.py"), ...args.map(String)];
  return new Peer(`torch ${variant}`, compile === undefined ? command : [...command, "--compile"]);
}

const folder = mkdtempSync(join(tmpdir(), "fathom-bench-"));
const configPath = join(folder, "config.json");
writeFileSync(configPath, hfConfigText(configFor("f32").model, { bos: 0, eos: 1 }));

const backend = createNativeBackend({ threads: 2 });
const rates = new Map<string, number[]>();
const record = (name: string, rate: number): void => void rates.set(name, [...(rates.get(name) ?? []), rate]);

const trainers = ["f32", "bf16"].map((precision) => ({
  name: `fathom ${precision}`,
  trainer: createTrainer(backend, precision),
}));
for (const { trainer } of trainers) for (let i = 0; i < 2; i++) await trainer.step();
const peers: Peer[] = [];
for (const variant of flags.torch.split(",").filter(Boolean)) {
  const peer = createPeer(variant, configPath);
  await peer.until("ready");
  peers.push(peer);
}
const loads: number[] = [];
/** Idle threads of the side that has just worked may spin for a while before they sleep. */
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 400));
for (let round = 0; round < rounds; round++) {
  loads.push(loadavg()[0]!);
  for (const { name, trainer } of trainers) {
    await settle();
    for (let i = 0; i < steps; i++) record(name, (await trainer.step()).tokensPerSec);
  }
  for (const peer of peers) {
    await settle();
    record(peer.name, (await peer.ask(steps)).median_tokens_per_sec as number);
  }
}
for (const peer of peers) peer[Symbol.dispose]();

const table = [...rates].map(([name, all]) => ({
  name,
  tokensPerSec: median(all),
  min: Math.min(...all),
  max: Math.max(...all),
}));
for (const row of table) {
  console.log(
    `${row.name.padEnd(28)} ${row.tokensPerSec.toFixed(0).padStart(7)} tokens/s (${row.min.toFixed(0)}–${row.max.toFixed(0)})`,
  );
}
const best = (prefix: string): number =>
  Math.max(...table.filter(({ name }) => name.startsWith(prefix)).map((row) => row.tokensPerSec));
const ratios = { f32: best("fathom f32") / best("torch f32"), best: best("fathom") / best("torch") };
console.log(
  `f32 against f32 ${ratios.f32.toFixed(2)} ×, best against best ${ratios.best.toFixed(2)} ×; load ${loads.map((l) => l.toFixed(1)).join(" ")}`,
);
const line = {
  date: new Date().toISOString(),
  command: process.argv.slice(2).filter((arg) => !arg.includes("/")),
  preset,
  isa: backend.isa,
  rounds,
  steps,
  loads,
  table,
  ratios,
};
appendFileSync(join(import.meta.dirname, "../results/train-peers.jsonl"), `${JSON.stringify(line)}\n`);
