/** `fathom chat`: a conversation in the terminal, one line a question. */

import { createInterface } from "node:readline";
import { Command } from "commander";
import { openEngine } from "../infer/node.ts";
import { answerOptions, generationSettings, type AnswerOptions } from "./answer.ts";
import { Conversation, createPrinter } from "./conversation.ts";
import { endFields } from "./generate.ts";
import { openBackend } from "./options.ts";
import { printJson } from "./output.ts";

export function chatCommand(): Command {
  return answerOptions(new Command("chat"))
    .description("talk with a model; each line of the input is a question")
    .option("--json", "one JSON object a line on stdout for each answer")
    .action(chat);
}

async function chat(options: AnswerOptions): Promise<void> {
  using backend = openBackend(options);
  const { model: folder, memoryLimit } = options;
  using engine = await openEngine({ folder, backend, now: () => performance.now(), memoryLimit });
  const settings = generationSettings(engine.settings, options);
  const { chatTemplate: template, system, thinking = false, json = false } = options;
  const conversation = await Conversation.open({ engine, folder, template, system, thinking });
  if (process.stdin.isTTY) {
    process.stderr.write(`template ${conversation.template}; Ctrl-C ends an answer, Ctrl-D the conversation\n`);
  }
  const printer = createPrinter(process.stdout);
  for await (const question of questions()) {
    const { content, reasoning, end } = await conversation.ask(
      question,
      settings,
      json ? () => undefined : printer.show,
    );
    if (json) printJson({ text: content, reasoning, chat_template: conversation.template, ...endFields(end) });
    else printer.end();
  }
}

/** The lines of the input that hold something; on a terminal after a prompt. */
async function* questions(): AsyncGenerator<string> {
  const lines = createInterface({
    input: process.stdin,
    output: process.stderr,
    prompt: "> ",
    terminal: process.stdin.isTTY,
  });
  const ask = (): void => {
    if (process.stdin.isTTY) lines.prompt();
  };
  ask();
  for await (const line of lines) {
    if (line.trim() !== "") yield line;
    ask();
  }
}
