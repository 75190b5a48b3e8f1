/**
 * Generation speed against `transformers` generate on the same model with random weights, taking turns in one run.
 *
 *     npx tsx bench/infer/peers.bench.ts nano --python VENV/bin/python [--rounds 5] [--tokens 128] [--torch f32:eager,bf16:eager]
 *
 * One sequence, a prompt of 64 tokens, greedy, a cache on both sides. Appends one JSON line to
 * bench/results/generate-peers.jsonl.
 */

import { parseArgs } from "node:util";
import { resolveConfig } from "../../src/config/index.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";
import { Rates, startTorchPeers } from "../peer.ts";
import { appendResult } from "../result-file.ts";
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
const peers = await startTorchPeers({
  python: flags.python,
  script: "torch_generate.py",
  variants: flags.torch.split(",").filter(Boolean),
  model: settings.model,
  args: ["--prompt-len", PROMPT_TOKENS, "--repeat", 1],
});
await decodeRate(engine);
const rates = new Rates();
for (let round = 0; round < rounds; round++) {
  rates.startRound();
  rates.record("fathom", await decodeRate(engine));
  for (const peer of peers) rates.record(peer.name, (await peer.ask(tokens)).decode_tokens_per_sec as number);
}
for (const peer of peers) peer[Symbol.dispose]();

const ratio = rates.best("fathom") / rates.best("torch");
rates.print(`against torch's best ${ratio.toFixed(2)} ×`, 1);
const { isa } = backend;
appendResult("generate-peers", { preset, isa, rounds, tokens, loads: rates.loads, table: rates.table(), ratio });
