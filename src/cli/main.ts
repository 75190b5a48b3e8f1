#!/usr/bin/env node
/** The command line: `fathom VERB`. Each verb is a file; this one puts them together and turns errors into exit codes. */

import { Command, CommanderError } from "commander";
import { FathomError } from "../core/errors.ts";
import { benchCommand } from "./bench.ts";
import { dataCommand } from "./data.ts";
import { doctorCommand } from "./doctor.ts";
import { generateCommand } from "./generate.ts";
import { quickstartCommand } from "./quickstart.ts";
import { tokenizeCommand } from "./tokenize.ts";
import { trainCommand } from "./train.ts";

function program(): Command {
  const fathom = new Command("fathom")
    .description("DeepSeek-family language models in TypeScript: train, run and look inside")
    .exitOverride()
    .showHelpAfterError("(add --help for usage)");
  for (const verb of [
    quickstartCommand(),
    dataCommand(),
    trainCommand(),
    tokenizeCommand(),
    generateCommand(),
    doctorCommand(),
    benchCommand(),
  ]) {
    fathom.addCommand(verb.copyInheritedSettings(fathom));
  }
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
  await program().parseAsync();
} catch (error) {
  process.exitCode = report(error);
}
