/** `fathom generate`: the continuation of a prompt, or the answer to it by a chat template, streamed. */

import { Command } from "commander";
import type { GenerationEnd } from "../infer/index.ts";
import { openEngine } from "../infer/node.ts";
import { resolveModelFolder } from "../model/node.ts";
import { loadTokenizer } from "../tokenizer/node.ts";
import { answerOptions, collectAnswer, generationSettings, type AnswerOptions } from "./answer.ts";
import { Conversation, createPrinter } from "./conversation.ts";
import { openBackend } from "./options.ts";
import { printJson } from "./output.ts";

interface GenerateOptions extends AnswerOptions {
  readonly prompt: string;
}

export function generateCommand(): Command {
  return answerOptions(new Command("generate"))
    .description("continue a prompt with a trained model, or answer it with --chat-template, --system or --thinking")
    .option("--prompt <text>", "text to continue, or to answer", "")
    .option("--json", "one JSON object on stdout")
    .action(generate);
}

async function generate(options: GenerateOptions): Promise<void> {
  using backend = openBackend(options);
  const { model: folder, memoryLimit, gemmImpl } = options;
  const tokenizer = await loadTokenizer(await resolveModelFolder(folder));
  using engine = await openEngine({ folder, backend, tokenizer, now: () => performance.now(), memoryLimit, gemmImpl });
  const settings = generationSettings(engine.settings, options);
  const { chatTemplate: template, system, thinking = false, json = false } = options;
  if (template !== undefined || system !== undefined || thinking) {
    const conversation = await Conversation.open({ engine, tokenizer, folder, template, system, thinking });
    const printer = createPrinter(process.stdout);
    const show = json ? (): void => undefined : printer.show;
    const { content, reasoning, end } = await conversation.ask(options.prompt, settings, show);
    if (!json) printer.end();
    return report({ text: content, reasoning, chat_template: conversation.template }, end, json);
  }
  const { text, end } = await collectAnswer(engine, options.prompt, settings, (piece) => {
    if (!json) process.stdout.write(piece);
  });
  if (!json) process.stdout.write("\n");
  report({ text }, end, json);
}

function report(answer: Readonly<Record<string, string>>, end: GenerationEnd, json: boolean): void {
  if (json) return printJson({ ...answer, ...endFields(end) });
  process.stderr.write(`${end.tokens} tokens, ${end.tokensPerSec.toFixed(1)} tokens/s, ended by ${end.reason}\n`);
}

/** How an answer ended, as JSON output spells it. */
export function endFields(end: GenerationEnd): Record<string, unknown> {
  return {
    tokens: end.tokens,
    tokens_per_sec: end.tokensPerSec,
    prompt_tokens: end.promptTokens,
    finish_reason: end.reason,
  };
}
