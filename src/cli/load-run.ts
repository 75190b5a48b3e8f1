/** `fathom bench load-run`: one start in a process of its own, which `fathom bench load` measures. */

import { readFileSync } from "node:fs";
import { Command } from "commander";
import { openEngine } from "../infer/node.ts";
import { loadTokenizer } from "../tokenizer/node.ts";
import { openBackend } from "./options.ts";
import { printJson } from "./output.ts";

/** Times in milliseconds since the process began. */
export interface LoadRun {
  /** When our own code began. */
  readonly startMs: number;
  /** When the tokenizer, or the whole model, was loaded. */
  readonly loadedMs: number;
  /** RssAnon of /proc/self/status at the end; null where the system does not tell. */
  readonly anonymousBytes: number | null;
}

export interface ModelRun extends LoadRun {
  /** Milliseconds of loading the tokenizer alone. */
  readonly tokenizerMs: number;
  readonly firstTokenMs: number;
  readonly cacheBytes: number;
}

const PROMPT = "The quick brown fox";

export function loadRunCommand(): Command {
  return new Command("load-run")
    .argument("<model>", "a model folder or a .gguf file")
    .option("--tokenizer-only", "load nothing else")
    .action(async (model: string, { tokenizerOnly = false }: { tokenizerOnly?: boolean }) =>
      printJson(tokenizerOnly ? await runTokenizer(model) : await runModel(model)),
    );
}

async function runTokenizer(model: string): Promise<LoadRun & { vocabulary: number }> {
  const startMs = performance.now();
  const tokenizer = await loadTokenizer(model);
  const loadedMs = performance.now();
  return { startMs, loadedMs, anonymousBytes: anonymousBytes(), vocabulary: tokenizer.vocabSize };
}

async function runModel(folder: string): Promise<ModelRun> {
  const startMs = performance.now();
  const tokenizer = await loadTokenizer(folder);
  const tokenizerMs = performance.now() - startMs;
  using backend = openBackend({});
  using engine = await openEngine({ folder, backend, tokenizer, now: () => performance.now() });
  const loadedMs = performance.now();
  const generation = { ...engine.settings.generation, maxTokens: 1, temperature: 0 };
  let firstTokenMs = 0;
  for await (const _ of engine.generate(PROMPT, generation)) firstTokenMs ||= performance.now();
  const { cacheBytes } = engine;
  return { startMs, tokenizerMs, loadedMs, firstTokenMs, anonymousBytes: anonymousBytes(), cacheBytes };
}

function anonymousBytes(): number | null {
  try {
    const kib = /RssAnon:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    return kib === undefined ? null : 1024 * Number(kib);
  } catch {
    return null;
  }
}
