/** Where a benchmark's figures go. */

import { appendFileSync } from "node:fs";
import { join } from "node:path";

/** Appends one JSON line with the date to `bench/results/NAME.jsonl`. */
export function appendResult(name: string, figures: Readonly<Record<string, unknown>>): void {
  const line = { date: new Date().toISOString(), ...figures };
  appendFileSync(join(import.meta.dirname, "results", `${name}.jsonl`), `${JSON.stringify(line)}\n`);
}
