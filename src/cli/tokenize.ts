/** `fathom tokenize`: the ids of a text, by the tokenizer of a model folder. */

import { Command } from "commander";
import { loadTokenizer } from "../tokenizer/node.ts";
import { resolveModelFolder } from "../model/node.ts";
import { print, printJson } from "./output.ts";

export function tokenizeCommand(): Command {
  return new Command("tokenize")
    .description("show how a tokenizer cuts a text")
    .requiredOption("--model <path>", "a run folder, a checkpoint, a Hugging Face model folder, or a .gguf file")
    .argument("<text>", "text to cut")
    .option("--json", "one JSON object on stdout")
    .action(tokenize);
}

async function tokenize(text: string, { model, json = false }: { model: string; json?: boolean }): Promise<void> {
  const tokenizer = await loadTokenizer(await resolveModelFolder(model));
  const ids = Array.from(tokenizer.encode(text));
  const pieces = ids.map((id) => tokenizer.decode([id]));
  if (json) return printJson({ ids, pieces });
  print(ids.join(" "));
  print(pieces.map((piece) => JSON.stringify(piece)).join(" "));
}
