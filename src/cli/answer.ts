/** Options of the verbs that generate text, and the run of one answer. */

import type { Command } from "commander";
import { checkRuns, resolveConfig, toJson, type GenerationConfig, type ResolvedConfig } from "../config/index.ts";
import type { Engine, GemmImpl, GenerationEnd } from "../infer/index.ts";
import { collect, integer, number } from "./options.ts";
import { parseBytes } from "./plan-local.ts";
import { settingOption } from "./setting-option.ts";

export interface AnswerOptions {
  readonly model: string;
  readonly system?: string;
  readonly chatTemplate?: string;
  readonly thinking?: boolean;
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly repetitionPenalty?: number;
  readonly seed?: number;
  readonly stop?: string[];
  readonly threads?: number;
  readonly memoryLimit?: number;
  readonly gemmImpl?: GemmImpl;
  readonly json?: boolean;
}

/** Adds the options of `AnswerOptions` to a verb. */
export function answerOptions(verb: Command): Command {
  return verb
    .requiredOption("--model <path>", "a run folder, a checkpoint, a Hugging Face model folder, or a .gguf file")
    .option("--system <text>", "what the model is told before the conversation")
    .option("--chat-template <name>", "deepseek-v3 and the like, or checkpoint for the model's own Jinja")
    .option("--thinking", "let the model think before it answers, where it can do both")
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
    .addOption(settingOption("--gemm-impl <type>", "runtime.gemm_impl"))
    .option(
      "--memory-limit <size>",
      "most that weights, as they are stored, cache and activations may take (default: what is available)",
      (text) => parseBytes("--memory-limit", text),
    );
}

/** The model's own generation settings with those of the flags laid over them. */
export function generationSettings(saved: ResolvedConfig, options: AnswerOptions): GenerationConfig {
  const { maxTokens, temperature, topK, topP, repetitionPenalty, seed, stop } = options;
  const generation = { maxTokens, temperature, topK, topP, repetitionPenalty, seed, stop };
  const config = resolveConfig(JSON.parse(toJson(saved)) as Record<string, unknown>, { generation });
  checkRuns(config, "generate");
  return config.generation;
}

/** Runs a generation to its end, or until Ctrl-C, handing on each piece. */
export async function collectAnswer(
  engine: Engine,
  prompt: string | ArrayLike<number>,
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
