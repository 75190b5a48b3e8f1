/**
 * What the router's bias is worth: the quickstart cut short, as it is and with bias speed 0, each with the balance loss
 * of the preset and without. About a minute per hundred steps on two cores.
 *
 *     npx tsx bench/train/router-bias.bench.ts [--steps 200]
 *
 * From the second evaluation on a balanced run uses every expert, and none for twice its share of the validation tokens.
 * Needs the corpus in the cache (`npx fathom data fetch sotu`). Appends one JSON line to bench/results/router-bias.jsonl.
 */

import { homedir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { resolveConfig } from "../../src/config/index.ts";
import { findCorpus, type TokenStream } from "../../src/data/index.ts";
import { openCorpus } from "../../src/data/node.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";
import { Trainer, type EvalReport } from "../../src/train/index.ts";
import { prepareText } from "../../src/train/node.ts";
import { appendResult } from "../result-file.ts";

const { values: flags } = parseArgs({ options: { steps: { type: "string", default: "200" } } });
const VALIDATION_TOKENS = 65_536;
const cacheDir = process.env.FATHOM_CACHE ?? join(homedir(), ".cache", "fathom");
const steps = Number(flags.steps);
const { model, training } = resolveConfig("nano");
const source = await openCorpus(findCorpus("sotu"), { cacheDir });
const text = await prepareText({ source, cacheDir, vocabSize: model.vocabSize, valFraction: training.valFraction });
const validation = firstDocuments(text.dataset.validation, VALIDATION_TOKENS);
const backend = createNativeBackend();

/** Whole documents from the beginning of a stream, of about so many tokens. */
function firstDocuments(stream: TokenStream, tokens: number): TokenStream {
  const length = stream.documentStarts(tokens, stream.length)[0] ?? stream.length;
  return {
    length,
    read: (start, count) => stream.read(start, count),
    documentStarts: (from, to) => stream.documentStarts(from, Math.min(to, length)),
  };
}

async function evaluationsWith(settings: Record<string, number>): Promise<EvalReport[]> {
  const config = resolveConfig("nano", { steps, ...settings });
  const { tokenBytes, dataset } = text;
  const { train } = dataset;
  using trainer = new Trainer({ backend, config, train, validation, tokenBytes, now: () => performance.now() });
  const evaluations: EvalReport[] = [];
  for (let step = 1; step <= steps; step++) {
    await trainer.step();
    if (step % config.training.evalEvery === 0 || step === steps) evaluations.push(await trainer.evaluate());
  }
  return evaluations;
}

const VARIANTS = {
  "with bias": {},
  "bias speed 0": { router_bias_speed: 0 },
  "with bias, no balance loss": { seq_balance_alpha: 0 },
  "bias speed 0, no balance loss": { router_bias_speed: 0, seq_balance_alpha: 0 },
};

/** The worst of all layers and evaluations but the first. */
function verdict(evaluations: readonly EvalReport[]): Record<string, number | boolean> {
  const later = evaluations.slice(1).flatMap(({ routing }) => routing);
  const busiest = Math.max(...later.map(({ maxLoad }) => maxLoad));
  const unused = Math.max(...later.map(({ deadExperts }) => deadExperts));
  return { busiest, unused, balanced: busiest < 2 && unused === 0, bitsPerByte: evaluations.at(-1)!.bitsPerByte };
}

const rows = [];
const verdicts: Record<string, unknown> = {};
for (const [name, settings] of Object.entries(VARIANTS)) {
  const evaluations = await evaluationsWith(settings);
  for (const { step, bitsPerByte, routing } of evaluations) {
    const busiest = routing.map(({ maxLoad }) => maxLoad);
    const unused = routing.map(({ deadExperts }) => deadExperts);
    const entropy = routing.map((stats) => stats.entropy);
    rows.push({ name, step, bitsPerByte, busiest, unused, entropy });
    const loads = busiest.map((load) => load.toFixed(2)).join(" ");
    console.log(
      `${name.padEnd(30)} step ${step}: ${bitsPerByte.toFixed(4)} bits/byte, busiest expert of each layer ${loads} × mean, unused ${unused.join(" ")}`,
    );
  }
  verdicts[name] = verdict(evaluations);
}
console.log(verdicts);
appendResult("router-bias", { isa: backend.isa, steps, validationTokens: validation.length, verdicts, rows });
