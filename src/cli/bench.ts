/** `fathom bench`: what this machine can do at best, and what the kernels reach of it. */

import { Command } from "commander";
import { measureRoof } from "../kernels/node.ts";
import { benchLoadCommand } from "./bench-load.ts";
import { loadRunCommand } from "./load-run.ts";
import { checkThreads, integer } from "./options.ts";
import { print, printJson } from "./output.ts";

export function benchCommand(): Command {
  return new Command("bench")
    .description("measure bandwidth, arithmetic peaks and matrix products")
    .option("--threads <n>", "threads (default: the cores)", integer("--threads", 1))
    .option("--json", "one JSON object on stdout")
    .action(bench)
    .enablePositionalOptions()
    .addCommand(benchLoadCommand())
    .addCommand(loadRunCommand(), { hidden: true });
}

function bench({ threads, json = false }: { threads?: number; json?: boolean }): void {
  if (threads !== undefined) checkThreads(threads);
  const roof = measureRoof(threads);
  if (json) return printJson(roof);
  for (const { name, value, unit, percentOfPeak, peak } of roof) {
    const share = percentOfPeak === undefined ? "" : `  ${percentOfPeak.toFixed(0)} % of ${peak}`;
    print(`${name.padEnd(44)} ${value.toFixed(1).padStart(9)} ${unit}${share}`);
  }
}
