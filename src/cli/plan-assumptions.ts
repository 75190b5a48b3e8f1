/** `fathom plan assumptions`: the numbers that plans take where nothing better is known. */

import { Command } from "commander";
import { listAssumptions } from "../planner/index.ts";
import { print, printJson } from "./output.ts";
import { formatTable } from "./table.ts";

export function assumptionsCommand(): Command {
  return new Command("assumptions")
    .description("the numbers that plans take where nothing better is known, with their sources")
    .option("--json", "one JSON document on stdout")
    .action(showAssumptions);
}

function showAssumptions({ json = false }: { readonly json?: boolean }): void {
  const all = listAssumptions();
  if (json) return printJson({ assumptions: all });
  const rows = all.map(({ name, value, meaning, source }) => [name, String(value), meaning, source]);
  print(formatTable({ head: ["name", "value", "meaning", "source"], rows, left: [0, 2, 3] }, "text"));
}
