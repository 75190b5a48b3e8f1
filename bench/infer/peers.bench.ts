/**
 * Generation speed against `transformers` generate on the same model with random weights, taking turns in one run.
 *
 *     npx tsx bench/infer/peers.bench.ts nano --python VENV/bin/python [--rounds 5] [--tokens 128] [--torch f32:eager,bf16:eager]
 *
 * One sequence, a prompt of 64 tokens, greedy, a cache on both sides. Appends one JSON line to
 * bench/results/generate-peers.jsonl.
 */

import { appendFileSync, mkdtempSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { resolveConfig, hfConfigText } from "../../src/config/index.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";
import { Peer, median } from "../peer.ts";
import { PROMPT_TOKENS, decodeRate, openRandomEngine } from "./random-engine.ts";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: "string", default: "python3" },
    rounds: { type: "string", default: "5" },
    tokens: { type: "string", default: "128" },
    torch: { type: "string", default: "f32:eager,bf16:eager" },
  },
});
const preset = positionals[0] ?? "nano";
const [rounds, tokens] = [Number(flags.rounds), Number(flags.tokens)];
const settings = resolveConfig(preset, { n_mtp_layers: 0, max_seq_len: 1024, temperature: 0, max_tokens: tokens });

const backend = createNativeBackend({ threads: 2 });
using engine = await openRandomEngine(backend, settings);

const folder = mkdtempSync(join(tmpdir(), "fathom-bench-"));
const configPath = join(folder, "config.json");
writeFileSync(configPath, hfConfigText(settings.model, { bos: 0, eos: 1 }));
const peers: Peer[] = [];
for (const variant of flags.torch.split(",").filter(Boolean)) {
  const [dtype, experts] = variant.split(":") as [string, string];
  const args = [
    "--config",
    configPath,
    "--prompt-len",
    String(PROMPT_TOKENS),
    "--dtype",
    dtype,
    "--experts",
    experts,
    "--repeat",
    "1",
  ];
  const peer = new Peer(`torch ${variant}`, [
    flags.python,
    join(import.meta.dirname, "../peers/torch_generate.py"),
    ...args,
  ]);
  await peer.until("ready");
  peers.push(peer);
}
await decodeRate(engine);
const rates = new Map<string, number[]>();
const record = (name: string, rate: number): void => void rates.set(name, [...(rates.get(name) ?? []), rate]);
const loads: number[] = [];
for (let round = 0; round < rounds; round++) {
  loads.push(loadavg()[0]!);
  record("fathom", await decodeRate(engine));
  for (const peer of peers) record(peer.name, (await peer.ask(tokens)).decode_tokens_per_sec as number);
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
    `${row.name.padEnd(24)} ${row.tokensPerSec.toFixed(1).padStart(8)} tokens/s (${row.min.toFixed(1)}–${row.max.toFixed(1)})`,
  );
}
const torch = Math.max(...table.filter(({ name }) => name.startsWith("torch")).map((row) => row.tokensPerSec));
const ratio = table[0]!.tokensPerSec / torch;
console.log(`against torch's best ${ratio.toFixed(2)} ×; load ${loads.map((load) => load.toFixed(1)).join(" ")}`);
const line = { date: new Date().toISOString(), preset, isa: backend.isa, rounds, tokens, loads, table, ratio };
appendFileSync(join(import.meta.dirname, "../results/generate-peers.jsonl"), `${JSON.stringify(line)}\n`);
