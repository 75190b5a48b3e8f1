/** `fathom chat`: a conversation in the terminal, one line a question. */

import { createInterface } from "node:readline";
import { Command } from "commander";
import { ConfigError, MemoryError } from "../core/errors.ts";
import { openEngine } from "../infer/node.ts";
import { resolveModelFolder } from "../model/node.ts";
import { loadTokenizer } from "../tokenizer/node.ts";
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
  const { model: folder, memoryLimit, gemmImpl } = options;
  const tokenizer = await loadTokenizer(await resolveModelFolder(folder));
  using engine = await openEngine({ folder, backend, tokenizer, now: () => performance.now(), memoryLimit, gemmImpl });
  const settings = generationSettings(engine.settings, options);
  const { chatTemplate: template, system, thinking = false, json = false } = options;
  const conversation = await Conversation.open({ engine, tokenizer, folder, template, system, thinking });
  if (process.stdin.isTTY) {
    process.stderr.write(`template ${conversation.template}; Ctrl-C ends an answer, Ctrl-D the conversation\n`);
  }
  const printer = createPrinter(process.stdout);
  for await (const question of questions()) {
    const answer = await conversation
      .ask(question, settings, json ? () => undefined : printer.show)
      .catch(reportToTerminal);
    if (answer === undefined) continue;
    const { content, reasoning, end } = answer;
    if (json) printJson({ text: content, reasoning, chat_template: conversation.template, ...endFields(end) });
    else printer.end();
  }
}

/** At a terminal a question that cannot be answered, such as one that is too long, does not end the conversation. */
function reportToTerminal(error: unknown): undefined {
  if (!process.stdin.isTTY || !(error instanceof ConfigError || error instanceof MemoryError)) throw error;
  process.stderr.write(`error: ${error.message}\n`);
}

/** The lines of the input that hold something; on a terminal after a prompt. */
async function* questions(): AsyncGenerator<string> {
  const lines = createInterface({
    input: process.stdin,
    output: process.stderr,
    prompt: "> ",
    terminal: process.stdin.isTTY,
  });
  // A terminal hands Ctrl-C to `lines`: it goes to the answer under way, or ends the conversation where there is none.
  lines.on("SIGINT", () => {
    if (!process.emit("SIGINT")) lines.close();
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
