/** `fathom quickstart`: the main job from public text to a model that writes, without a question. */

import { existsSync } from "node:fs";
import { Command } from "commander";
import type { RuntimeConfig } from "../config/index.ts";
import { CORPORA, findCorpus } from "../data/index.ts";
import type { Engine } from "../infer/index.ts";
import { openEngine } from "../infer/node.ts";
import { collectAnswer } from "./answer.ts";
import { integer, number, openBackend } from "./options.ts";
import { printJson } from "./output.ts";
import { newRun } from "./train.ts";
import { defaultOut, runTraining, stoppedText } from "./training.ts";
import { writePoems } from "./verses.ts";

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
    .option("--json", "one JSON object per step, evaluation, checkpoint and for the sample on stdout")
    .action(quickstart);
}

async function quickstart(options: QuickstartOptions): Promise<void> {
  const { name } = findCorpus(options.corpus);
  const out = options.out ?? freeFolder(defaultOut(`quickstart-${name}`));
  const { seed, threads, minutes, json = false } = options;
  const job = newRun({ base: "nano", data: { kind: "corpus", name }, out, json }, { training: { seed }, threads });
  const result = await runTraining({ ...job, ...(minutes === undefined ? {} : { minutes }) });
  // With --json all of stdout is JSON.
  const prose = json ? process.stderr : process.stdout;
  const say: Say = (text) => void prose.write(text);
  if (result.stepsLeft !== undefined) return say(`${stoppedText(result, out)}\n`);
  const sample = await writeSample(out, name, job.config.runtime, say);
  if (json) printJson(sample);
  say(conclusion(out, name, result.evaluations.at(-1)!.bitsPerByte));
}

function freeFolder(base: string): string {
  for (let i = 1; ; i++) {
    const folder = i === 1 ? base : `${base}-${i}`;
    if (!existsSync(folder)) return folder;
  }
}

/** Where text for people goes. */
type Say = (text: string) => void;

/** How a sample of each corpus begins, and what to ask it for next. */
const PROMPTS: Readonly<Record<string, { readonly sample: string; readonly next: string }>> = {
  sotu: { sample: "Fellow-Citizens of the Senate and House of Representatives:", next: "The Congress" },
  tang: { sample: "", next: "明月" },
};
const NO_PROMPT = { sample: "", next: "" };
const SAMPLE = { maxTokens: 120, temperature: 0.8, topP: 0.95, seed: 1 };

/** Loads the saved run back and lets it write. Returns what was written. */
async function writeSample(folder: string, corpus: string, runtime: RuntimeConfig, say: Say): Promise<object> {
  using backend = openBackend(runtime);
  using engine = await openEngine({ folder, backend, now: () => performance.now() });
  return corpus === "tang" ? await writePoems(engine, say) : await writeSpeech(engine, corpus, say);
}

async function writeSpeech(engine: Engine, corpus: string, say: Say): Promise<object> {
  const { sample } = PROMPTS[corpus] ?? NO_PROMPT;
  say(`\n${sample}`);
  const { text, end } = await collectAnswer(engine, sample, { ...engine.settings.generation, ...SAMPLE }, say);
  say(`\n\n(${end.tokens} tokens at ${end.tokensPerSec.toFixed(0)} tokens/s)\n`);
  return { sample: sample + text, tokens: end.tokens, tokens_per_sec: end.tokensPerSec };
}

function conclusion(folder: string, corpus: string, bitsPerByte: number): string {
  const { next } = PROMPTS[corpus] ?? NO_PROMPT;
  return `bits per byte ${bitsPerByte.toFixed(3)}

next:
  npx fathom generate --model ${folder} --prompt "${next}"
  npx fathom train --data 'texts/**/*.txt'      your own text
  npx fathom --help
`;
}
