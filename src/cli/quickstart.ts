/** `fathom quickstart`: the main job from public text to a model that writes, without a question. */

import { existsSync } from "node:fs";
import { Command } from "commander";
import type { RuntimeConfig } from "../config/index.ts";
import { CORPORA, findCorpus } from "../data/index.ts";
import { openEngine } from "../infer/node.ts";
import type { EvalReport } from "../train/index.ts";
import { collectAnswer } from "./generate.ts";
import { integer, number, openBackend } from "./options.ts";
import { print } from "./output.ts";
import { newRun } from "./train.ts";
import { defaultOut, runTraining } from "./training.ts";
import { scoreVerses } from "./verses.ts";

interface QuickstartOptions {
  readonly corpus: string;
  readonly minutes?: number;
  readonly seed?: number;
  readonly threads?: number;
  readonly out?: string;
  readonly json?: boolean;
}

export function quickstartCommand(): Command {
  return new Command("quickstart")
    .description("train the nano model on public text for about two minutes, then let it write")
    .option("--corpus <name>", `one of ${CORPORA.map(({ name }) => name).join(", ")}`, "sotu")
    .option("--minutes <m>", "measure the speed and train for about so long", number("--minutes", 0.1))
    .option("--seed <s>", "seed of weights and order", integer("--seed", 0))
    .option("--threads <n>", "threads (default: the cores)", integer("--threads", 1))
    .option("--out <dir>", "run folder (default the first free runs/quickstart-CORPUS…)")
    .option("--json", "one JSON object per step, evaluation and checkpoint on stdout")
    .action(quickstart);
}

async function quickstart(options: QuickstartOptions): Promise<void> {
  const { name } = findCorpus(options.corpus);
  const out = options.out ?? freeFolder(defaultOut(`quickstart-${name}`));
  const { seed, threads } = options;
  const settings = { training: { seed }, threads };
  const job = newRun({ name: "nano", data: { kind: "corpus", name }, out, json: options.json ?? false }, settings);
  const { minutes } = options;
  const result = await runTraining({ ...job, ...(minutes === undefined ? {} : { minutes }) });
  if (result.interrupted) {
    print(`stopped after step ${result.steps}; go on with: npx fathom train --resume ${out}`);
    return;
  }
  await writeSample(out, name, job.config.runtime);
  conclude(out, result.evaluations);
}

function freeFolder(base: string): string {
  for (let i = 1; ; i++) {
    const folder = i === 1 ? base : `${base}-${i}`;
    if (!existsSync(folder)) return folder;
  }
}

const PROMPTS: Readonly<Record<string, string>> = {
  sotu: "Fellow-Citizens of the Senate and House of Representatives:",
};
const SAMPLE = { maxTokens: 120, temperature: 0.8, topP: 0.95, seed: 1 };

/** Loads the saved run back and lets it write. */
async function writeSample(folder: string, corpus: string, runtime: RuntimeConfig): Promise<void> {
  using backend = openBackend(runtime);
  using engine = await openEngine({ folder, backend, now: () => performance.now() });
  if (corpus === "tang") {
    print(await scoreVerses(engine));
    return;
  }
  const prompt = PROMPTS[corpus] ?? "";
  print("");
  process.stdout.write(prompt);
  const { generation } = engine.settings;
  const { end } = await collectAnswer(engine, prompt, { ...generation, ...SAMPLE }, (piece) =>
    process.stdout.write(piece),
  );
  print(`\n\n(${end.tokens} tokens at ${end.tokensPerSec.toFixed(0)} tokens/s)`);
}

function conclude(folder: string, evaluations: readonly EvalReport[]): void {
  print(`bits per byte ${evaluations.at(-1)!.bitsPerByte.toFixed(3)}`);
  print("");
  print("next:");
  print(`  npx fathom generate --model ${folder} --prompt "The Congress"`);
  print(`  npx fathom train --data 'texts/**/*.txt'      your own text`);
  print(`  npx fathom --help`);
}
