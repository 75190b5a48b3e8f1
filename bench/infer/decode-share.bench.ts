/**
 * The share of a token's time that decoding spends outside kernels: on sampling, on the latent cache's bookkeeping, on
 * crossing into native code and on the checks of each call there.
 *
 *     npx tsx bench/infer/decode-share.bench.ts lite-slice [--tokens 64] [--rounds 5]
 *
 * A token's recorded list runs in one crossing, which is timed; the checks within it are taken off by the measured price
 * of a call that does nothing. Appends one JSON line to bench/results/decode-share.jsonl.
 */

import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { resolveConfig } from "../../src/config/index.ts";
import { decodeCalls, encodeCall, type Backend } from "../../src/kernels/index.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";
import { median } from "../peer.ts";
import { appendResult } from "../result-file.ts";
import { decodeRate, openRandomEngine } from "./random-engine.ts";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { tokens: { type: "string", default: "64" }, rounds: { type: "string", default: "5" } },
});
const preset = positionals[0] ?? "lite-slice";
const [rounds, tokens] = [Number(flags.rounds), Number(flags.tokens)];
const settings = resolveConfig(preset, { n_mtp_layers: 0, max_seq_len: 1024, temperature: 0, max_tokens: tokens });

const native = createNativeBackend({ threads: 2 });
/** What crossed into native code since it was last cleared. Only a replayed list has more than one call. */
const crossed = { lists: 0, listMs: 0, calls: 0 };
const backend: Backend = {
  ...native,
  run: (words) => {
    const start = performance.now();
    native.run(words);
    if (words[1] === words.length) return;
    crossed.lists++;
    crossed.listMs += performance.now() - start;
    if (crossed.calls === 0) crossed.calls = [...decodeCalls(words)].length;
  },
};
using engine = await openRandomEngine(backend, settings);

/** Milliseconds of a call whose kernel has nothing to do. */
function emptyCallMs(): number {
  const y = native.alloc(4);
  const at = { handle: y, offset: 0, dtype: "f32" } as const;
  // Four operands and no rows, as a usual call of a step.
  const one = encodeCall("rmsNorm", { x: at, w: at, y: at, rstd: at }, { n: 0, d: 0, xStride: 0, eps: 1 });
  const count = 1000;
  const words = new Float64Array(one.length * count);
  for (let i = 0; i < count; i++) words.set(one, i * one.length);
  const times = Array.from({ length: 20 }, () => {
    const start = performance.now();
    native.run(words);
    return (performance.now() - start) / count;
  });
  native.free(y);
  return median(times);
}

await decodeRate(engine);
const loads: number[] = [];
const tokenTimes: number[] = [];
const shares: number[] = [];
const callMs = emptyCallMs();
for (let round = 0; round < rounds; round++) {
  loads.push(loadavg()[0]!);
  Object.assign(crossed, { lists: 0, listMs: 0 });
  const tokenMs = 1000 / (await decodeRate(engine));
  tokenTimes.push(tokenMs);
  shares.push(1 - (crossed.listMs / crossed.lists - crossed.calls * callMs) / tokenMs);
}
const [tokenMs, share] = [median(tokenTimes), median(shares)];
const range = [Math.min(...shares), Math.max(...shares)];
const percent = (value: number): string => `${(100 * value).toFixed(1)} %`;
console.log(`${preset} on ${native.isa}: ${tokenMs.toFixed(3)} ms a token, ${(1000 / tokenMs).toFixed(1)} tokens/s`);
console.log(`${crossed.calls} calls in one crossing, ${(1000 * callMs).toFixed(2)} µs each before its kernel begins`);
console.log(`outside kernels ${percent(share)} of a token's time (${range.map(percent).join(" to ")})`);
appendResult("decode-share", {
  ...{ preset, isa: native.isa, rounds, tokens, loads },
  ...{ tokenMs, calls: crossed.calls, callMs, outsideShare: share, outsideRange: range },
});
