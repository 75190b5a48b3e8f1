#!/usr/bin/env node
/** The command line: `fathom VERB`. Each verb is a file; this one puts them together and turns errors into exit codes. */

import { Command, CommanderError } from "commander";
import { FathomError } from "../core/errors.ts";

/** Each verb is loaded when it is called, so that a count does not wait for the engine. */
const VERBS: Readonly<Record<string, () => Promise<Command>>> = {
  quickstart: async () => (await import("./quickstart.ts")).quickstartCommand(),
  data: async () => (await import("./data.ts")).dataCommand(),
  train: async () => (await import("./train.ts")).trainCommand(),
  tokenize: async () => (await import("./tokenize.ts")).tokenizeCommand(),
  generate: async () => (await import("./generate.ts")).generateCommand(),
  chat: async () => (await import("./chat.ts")).chatCommand(),
  eval: async () => (await import("./eval.ts")).evalCommand(),
  params: async () => (await import("./params.ts")).paramsCommand(),
  plan: async () => (await import("./plan.ts")).planCommand(),
  explain: async () => (await import("./explain.ts")).explainCommand(),
  config: async () => (await import("./config.ts")).configCommand(),
  advise: async () => (await import("./advise.ts")).adviseCommand(),
  convert: async () => (await import("./convert.ts")).convertCommand(),
  inspect: async () => (await import("./inspect.ts")).inspectCommand(),
  doctor: async () => (await import("./doctor.ts")).doctorCommand(),
  bench: async () => (await import("./bench.ts")).benchCommand(),
};

/** The program with the verb that the arguments name, or with all of them for help and misspellings. */
async function program(words: readonly string[]): Promise<Command> {
  const fathom = new Command("fathom")
    .description("DeepSeek-family language models in TypeScript: count, plan, train, run and look inside")
    .exitOverride()
    // An option after `plan serve` belongs to serve, also where plan has one of that name.
    .enablePositionalOptions()
    .showHelpAfterError("(add --help for usage)");
  const first = words.find((word) => !word.startsWith("-")) ?? "";
  const named = Object.hasOwn(VERBS, first) ? [first] : Object.keys(VERBS);
  for (const verb of named) fathom.addCommand((await VERBS[verb]!()).copyInheritedSettings(fathom));
  return fathom;
}

/** Prints what went wrong and says with which code to end. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode;
  if (error instanceof FathomError) {
    process.stderr.write(`error: ${error.message}\n`);
    return 1;
  }
  process.stderr.write(`error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.stderr.write("This is a bug in Fathom.\n");
  return 70;
}

// A reader that has seen enough, such as `head`, closes the pipe: that is no fault.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

try {
  await (await program(process.argv.slice(2))).parseAsync();
} catch (error) {
  process.exitCode = report(error);
}
