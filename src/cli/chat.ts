/** `fathom chat`: a conversation in the terminal, one line a question. */

import { createInterface } from "node:readline";
import { Command } from "commander";
import { ConfigError, MemoryError } from "../core/errors.ts";
import { openEngine } from "../infer/node.ts";
import { resolveModelFolder } from "../model/node.ts";
import { loadTokenizer } from "../tokenizer/node.ts";
import { answerOptions, generationSettings, type AnswerOptions } from "./answer.ts";
import { type Answer, Conversation, createPrinter, WAYS_ON } from "./conversation.ts";
import { endFields } from "./generate.ts";
import { openBackend } from "./options.ts";
import { printJson } from "./output.ts";

interface ChatOptions extends AnswerOptions {
  readonly dropOldest?: boolean;
}

export function chatCommand(): Command {
  return answerOptions(new Command("chat"))
    .description("talk with a model; each line of the input is a question")
    .option("--drop-oldest", "leave out the oldest turns when the conversation no longer fits the context")
    .option("--json", "one JSON object a line on stdout for each answer")
    .action(chat);
}

async function chat(options: ChatOptions): Promise<void> {
  using backend = openBackend(options);
  const { model: folder, memoryLimit, gemmImpl } = options;
  const tokenizer = await loadTokenizer(await resolveModelFolder(folder));
  using engine = await openEngine({ folder, backend, tokenizer, now: () => performance.now(), memoryLimit, gemmImpl });
  const settings = generationSettings(engine.settings, options);
  const { chatTemplate: template, system, thinking = false, dropOldest } = options;
  const opened = { engine, tokenizer, folder, template, system, thinking, dropOldest: dropOldest === true };
  const conversation = await Conversation.open(opened);
  if (process.stdin.isTTY) {
    const keys = "/drop leaves out the oldest turn, Ctrl-C ends an answer, Ctrl-D the conversation";
    say(`template ${conversation.template}; ${keys}`);
  }
  const printer = options.json === true ? undefined : createPrinter(process.stdout);
  for await (const line of questions()) {
    const drop = /^\/drop(?: +(\d+))?$/.exec(line.trim());
    if (drop !== null) {
      sayDropped(conversation.drop(Number(drop[1] ?? 1)), conversation.turns);
      continue;
    }
    const answer = await conversation
      .ask(line, settings, printer?.show ?? ((): void => undefined))
      .catch(reportToTerminal);
    if (answer === undefined) continue;
    printer?.end();
    if (printer === undefined) printJson(answerFields(answer, conversation.template));
    // The answer's own turn is one of those that are there now.
    if (answer.droppedTurns > 0) sayDropped(answer.droppedTurns, conversation.turns - 1);
    sayWhatCutIt(answer, engine.config.maxSeqLen, conversation.turns > 1 && dropOldest !== true);
  }
}

function answerFields({ content, reasoning, droppedTurns, end }: Answer, template: string): Record<string, unknown> {
  return { text: content, reasoning, chat_template: template, dropped_turns: droppedTurns, ...endFields(end) };
}

/** Says whether the context, not `--max-tokens`, has ended an answer. @param hasSurplus - whether older turns can go. */
function sayWhatCutIt({ end }: Answer, contextTokens: number, hasSurplus: boolean): void {
  if (end.reason !== "length" || end.promptTokens + end.tokens < contextTokens) return;
  const cure = hasSurplus ? WAYS_ON : "shorten the question or take a model with a longer context";
  say(`the answer ends with the context of ${contextTokens} tokens; ${cure}`);
}

function sayDropped(dropped: number, left: number): void {
  say(`oldest turns left out: ${dropped}, kept: ${left}`);
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** At a terminal a question that cannot be answered, such as one that is too long, does not end the conversation. */
function reportToTerminal(error: unknown): undefined {
  if (!process.stdin.isTTY || !(error instanceof ConfigError || error instanceof MemoryError)) throw error;
  say(`error: ${error.message}`);
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
