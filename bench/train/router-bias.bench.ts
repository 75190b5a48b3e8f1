/**
 * What the router's bias is worth: the quickstart run as it is, and with bias speed 0 and no balance loss.
 *
 *     npx tsx bench/train/router-bias.bench.ts [--steps 900]
 *
 * Appends one JSON line to bench/results/router-bias.jsonl.
 */

import { appendFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { resolveConfig } from "../../src/config/index.ts";
import { findCorpus } from "../../src/data/index.ts";
import { openCorpus } from "../../src/data/node.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";
import { Trainer, type EvalReport } from "../../src/train/index.ts";
import { prepareText } from "../../src/train/node.ts";

const { values: flags } = parseArgs({ options: { steps: { type: "string" } } });
const cacheDir = process.env.FATHOM_CACHE ?? join(homedir(), ".cache", "fathom");
const steps = flags.steps === undefined ? {} : { steps: Number(flags.steps) };
const base = resolveConfig("nano", steps);
const source = await openCorpus(findCorpus("sotu"), { cacheDir });
const { model, training } = base;
const text = await prepareText({ source, cacheDir, vocabSize: model.vocabSize, valFraction: training.valFraction });
const { train, validation } = text.dataset;
const backend = createNativeBackend();

async function run(
  name: string,
  settings: Record<string, number>,
): Promise<{ name: string; evaluations: EvalReport[] }> {
  const config = resolveConfig("nano", { ...steps, ...settings });
  const { tokenBytes } = text;
  using trainer = new Trainer({ backend, config, train, validation, tokenBytes, now: () => performance.now() });
  const evaluations: EvalReport[] = [];
  for (let step = 1; step <= config.training.steps; step++) {
    await trainer.step();
    if (step % config.training.evalEvery === 0 || step === config.training.steps)
      evaluations.push(await trainer.evaluate());
  }
  return { name, evaluations };
}

const runs = [
  await run("with bias", {}),
  await run("bias speed 0", { router_bias_speed: 0 }),
  await run("bias speed 0, no balance loss", { router_bias_speed: 0, seq_balance_alpha: 0 }),
];
for (const { name, evaluations } of runs) {
  for (const { step, bitsPerByte, routing } of evaluations) {
    const busiest = Math.max(...routing.map(({ maxLoad }) => maxLoad)).toFixed(2);
    const unused = routing.reduce((sum, { deadExperts }) => sum + deadExperts, 0);
    console.log(
      `${name.padEnd(30)} step ${step}: ${bitsPerByte.toFixed(4)} bits/byte, busiest ${busiest} × mean, ${unused} unused`,
    );
  }
}
const rows = runs.map(({ name, evaluations }) => ({
  name,
  evaluations: evaluations.map(({ step, bitsPerByte, routing }) => ({
    step,
    bitsPerByte,
    maxLoad: routing.map((r) => r.maxLoad),
  })),
}));
const line = { date: new Date().toISOString(), isa: backend.isa, steps: base.training.steps, rows };
appendFileSync(join(import.meta.dirname, "../results/router-bias.jsonl"), `${JSON.stringify(line)}\n`);
