/** `fathom generate`: the continuation of a prompt, streamed. */

import { Command } from "commander";
import { resolveConfig, toJson, type GenerationConfig, type ResolvedConfig } from "../config/index.ts";
import type { Engine, GenerationEnd } from "../infer/index.ts";
import { openEngine } from "../infer/node.ts";
import { integer, number, collect, openBackend } from "./options.ts";
import { printJson } from "./output.ts";

interface GenerateOptions {
  readonly model: string;
  readonly prompt: string;
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly repetitionPenalty?: number;
  readonly seed?: number;
  readonly stop?: string[];
  readonly threads?: number;
  readonly json?: boolean;
}

export function generateCommand(): Command {
  return new Command("generate")
    .description("continue a prompt with a trained model")
    .requiredOption("--model <dir>", "a run folder, a checkpoint, or a Hugging Face model folder")
    .option("--prompt <text>", "text to continue", "")
    .option("--max-tokens <n>", "longest answer in tokens", integer("--max-tokens", 1))
    .option("--temperature <t>", "0 takes the likeliest token each time", number("--temperature", 0))
    .option("--top-k <k>", "draw among the k likeliest tokens; 0 for all", integer("--top-k", 0))
    .option("--top-p <p>", "draw among the likeliest tokens that hold this probability", number("--top-p", 0, 1))
    .option(
      "--repetition-penalty <r>",
      "above 1 holds back tokens that were there already",
      number("--repetition-penalty", 0),
    )
    .option("--seed <s>", "seed of the draw", integer("--seed", 0))
    .option("--stop <text>", "end before this text; may be given several times", collect)
    .option("--threads <n>", "threads (default: the cores)", integer("--threads", 1))
    .option("--json", "one JSON object on stdout")
    .action(generate);
}

async function generate(options: GenerateOptions): Promise<void> {
  using backend = openBackend(options);
  using engine = await openEngine({ folder: options.model, backend, now: () => performance.now() });
  const settings = generationSettings(engine.settings, options);
  const { text, end } = await collectAnswer(engine, options.prompt, settings, (piece) => {
    if (options.json !== true) process.stdout.write(piece);
  });
  if (options.json === true) {
    printJson({
      text,
      tokens: end.tokens,
      tokens_per_sec: end.tokensPerSec,
      prompt_tokens: end.promptTokens,
      finish_reason: end.reason,
    });
  } else {
    process.stdout.write("\n");
    process.stderr.write(`${end.tokens} tokens, ${end.tokensPerSec.toFixed(1)} tokens/s, ended by ${end.reason}\n`);
  }
}

/** The model's own generation settings with those of the flags laid over them. */
function generationSettings(saved: ResolvedConfig, options: GenerateOptions): GenerationConfig {
  const { maxTokens, temperature, topK, topP, repetitionPenalty, seed, stop } = options;
  const generation = { maxTokens, temperature, topK, topP, repetitionPenalty, seed, stop };
  return resolveConfig(JSON.parse(toJson(saved)) as Record<string, unknown>, { generation }).generation;
}

/** Runs a generation to its end, or until Ctrl-C, handing on each piece. */
export async function collectAnswer(
  engine: Engine,
  prompt: string,
  settings: GenerationConfig,
  onPiece: (text: string) => void,
): Promise<{ text: string; end: GenerationEnd }> {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  process.once("SIGINT", abort);
  let text = "";
  let end: GenerationEnd | undefined;
  try {
    for await (const piece of engine.generate(prompt, settings, controller.signal)) {
      text += piece.text;
      onPiece(piece.text);
      end = piece.end;
    }
  } finally {
    process.off("SIGINT", abort);
  }
  return { text, end: end! };
}
