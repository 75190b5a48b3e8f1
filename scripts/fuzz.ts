/** `npm run fuzz [FILES] [SEED]`: damaged files of each format for the header readers, for the night. */

import { fuzzHeaders } from "../test/fuzz/fuzz-headers.ts";

const [files = "100000", seed = String(Date.now())] = process.argv.slice(2);
const started = performance.now();
const result = await fuzzHeaders(Number(files), Number(seed));
const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(`seed ${seed}: ${result.files} files in ${seconds} s, ${result.read} read, ${result.refused} refused`);
for (const fault of result.faults.slice(0, 20)) console.error(fault);
process.exitCode = result.faults.length === 0 ? 0 : 1;
