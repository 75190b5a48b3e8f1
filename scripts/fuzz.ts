/** `npm run fuzz [FILES] [SEED]`: damaged files of each format for the header readers, for the night. */

import { pathToFileURL } from "node:url";
import { ConfigError } from "../src/core/errors.ts";
import { fuzzHeaders } from "../test/fuzz/fuzz-headers.ts";

interface FuzzArguments {
  readonly files: number;
  readonly seed: number;
}

/** @throws ConfigError for what is no whole number, or for no files. */
export function fuzzArguments([files = "100000", seed = String(Date.now())]: readonly string[]): FuzzArguments {
  return { files: wholeNumber("FILES", files, 1), seed: wholeNumber("SEED", seed, 0) };
}

function wholeNumber(name: string, text: string, least: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new ConfigError(name, `must be a whole number of at least ${least}`, text, "npm run fuzz -- 1000 7");
}

async function run({ files, seed }: FuzzArguments): Promise<void> {
  const started = performance.now();
  const result = await fuzzHeaders(files, seed);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`seed ${seed}: ${result.files} files in ${seconds} s, ${result.read} read, ${result.refused} refused`);
  for (const fault of result.faults.slice(0, 20)) console.error(fault);
  process.exitCode = result.faults.length === 0 ? 0 : 1;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    await run(fuzzArguments(process.argv.slice(2)));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}
